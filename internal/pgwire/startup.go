package pgwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Codes that stand in the place of a version in the packets that open a connection.
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

// tlsRecord is the first byte of a TLS handshake. No length of a startup packet begins with it.
const tlsRecord = 0x16

// readOpening reads what follows the first byte of a packet without type: its code, and what stands behind that.
func readOpening(r io.Reader, first byte) (code uint32, rest []byte, err error) {
	head := [8]byte{first}
	if _, err := io.ReadFull(r, head[1:4]); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 8 || n-4 > maxStartup {
		return 0, nil, fmt.Errorf("invalid length of startup packet: %d", n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, cut(err)
	}
	rest = make([]byte, n-8)
	_, err = io.ReadFull(r, rest)
	return binary.BigEndian.Uint32(head[4:]), rest, cut(err)
}

// startup is the content of a startup packet.
type startup struct {
	user, database string
	params         []Param
	unknown        []string // protocol options (_pq_.…), of which none is known here
	replication    bool
}

// parseStartup reads what follows the version in a startup packet. The error is meant for the client.
func parseStartup(body []byte) (startup, *Error) {
	var s startup
	r := reader{b: body}
	for {
		name := r.string()
		if name == "" {
			break
		}
		s.set(name, r.string())
	}
	if r.failed || len(r.b) != 0 {
		return startup{}, &Error{Code: "08P01", Message: "invalid startup packet layout: expected terminator as last byte"}
	}
	if s.user == "" {
		return startup{}, &Error{Code: "28000", Message: "no PostgreSQL user name specified in startup packet"}
	}
	if s.database == "" {
		s.database = s.user
	}
	told := s.wantsReplication()
	return s, told
}

// set takes one parameter. Of user and database the last counts, as in PostgreSQL.
func (s *startup) set(name, value string) {
	switch {
	case name == "user":
		s.user = value
	case name == "database":
		s.database = value
	case strings.HasPrefix(name, "_pq_."):
		s.unknown = append(s.unknown, name)
	default:
		s.params = append(s.params, Param{name, value})
	}
}

// wantsReplication reads the parameter replication: `database`, or what PostgreSQL takes for a Boolean.
func (s *startup) wantsReplication() *Error {
	for _, p := range s.params {
		if p.Name != "replication" {
			continue
		}
		on, ok := boolean(p.Value)
		if p.Value == "database" {
			on, ok = true, true
		}
		if !ok {
			return &Error{Code: "22023", Message: fmt.Sprintf("invalid value for parameter %q: %q", p.Name, p.Value),
				Hint: `Valid values are: "false", 0, "true", 1, "database".`}
		}
		s.replication = on
	}
	return nil
}

// boolean reads a Boolean as PostgreSQL's settings have it: any unambiguous beginning of a word.
func boolean(v string) (on, ok bool) {
	v = strings.ToLower(v)
	begins := func(word string, least int) bool { return len(v) >= least && strings.HasPrefix(word, v) }
	switch {
	case v == "1", begins("true", 1), begins("yes", 1), begins("on", 2):
		return true, true
	case v == "0", begins("false", 1), begins("no", 1), begins("off", 2):
		return false, true
	}
	return false, false
}

// appendStartup appends a startup packet.
func appendStartup(dst []byte, v Version, params []Param) []byte {
	return appendOpening(dst, uint32(v), func(b []byte) []byte {
		for _, p := range params {
			b = text(text(b, p.Name), p.Value)
		}
		return append(b, 0)
	})
}

// appendOpening appends a packet without type: length, code, and the body that the function appends.
func appendOpening(dst []byte, code uint32, body func([]byte) []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = body(binary.BigEndian.AppendUint32(dst, code))
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// appendRequest appends an SSLRequest or a GSSENCRequest.
func appendRequest(dst []byte, code uint32) []byte {
	return appendOpening(dst, code, func(b []byte) []byte { return b })
}

// appendCancel appends a cancel request.
func appendCancel(dst []byte, key CancelKey) []byte {
	return appendOpening(dst, codeCancel, func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint32(b, key.PID), key.Secret...)
	})
}

// parseCancel reads what follows the code in a cancel request.
func parseCancel(body []byte) (*CancelKey, error) {
	if len(body) < 8 || len(body) > 4+maxCancelKey {
		return nil, fmt.Errorf("invalid length of cancel request: %d", len(body)+8)
	}
	return &CancelKey{PID: binary.BigEndian.Uint32(body), Secret: body[4:]}, nil
}

// agreed is the version that is spoken with a client that asks for v: v itself, or the newest here.
func agreed(v Version) (Version, error) {
	if v.Major() != 3 {
		return 0, errors.New("not protocol 3")
	}
	return min(v, Version32), nil
}

// appendNegotiation appends a NegotiateProtocolVersion: the newest version here, and the options that are not known.
func appendNegotiation(dst []byte, v Version, unknown []string) []byte {
	return finish(dst, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
		b = binary.BigEndian.AppendUint32(b, uint32(len(unknown)))
		for _, name := range unknown {
			b = text(b, name)
		}
		return b
	}, 'v')
}
