package pgwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// authenticate answers an authentication message of the server's.
func (l *login) authenticate(body []byte) error {
	r := reader{b: body}
	code := r.uint32()
	if r.failed || l.admitted {
		return errors.New("malformed authentication request")
	}
	c := l.o.Credential
	switch code {
	case authOK:
		if l.scram != nil && !l.proved {
			return ErrImposter
		}
		l.admitted = true
		return nil
	case authCleartext:
		if c.Password == "" {
			return fmt.Errorf("%w: it asks for a password in clear, and there is none", ErrCredential)
		}
		return l.answer(text(nil, c.Password))
	case authMD5:
		return l.answerMD5(r.take(4))
	case authSASL:
		return l.beginSCRAM(&r)
	case authSASLContinue:
		return l.continueSCRAM(r.b)
	case authSASLFinal:
		return l.endSCRAM(r.b)
	}
	return fmt.Errorf("%w: its authentication method has the code %d, which is not supported", ErrCredential, code)
}

// answer sends a message of type p.
func (l *login) answer(body []byte) error {
	_, err := l.server.Conn.Write(finish(nil, func(b []byte) []byte { return append(b, body...) }, 'p'))
	return err
}

func (l *login) answerMD5(salt []byte) error {
	c := l.o.Credential
	stored := c.MD5
	switch {
	case salt == nil:
		return errors.New("malformed authentication request")
	case c.Password != "":
		stored = storedMD5(l.o.User, c.Password)
	case stored == "":
		return fmt.Errorf("%w: it asks for MD5, and there are neither a password nor its MD5 hash", ErrCredential)
	}
	return l.answer(text(nil, answerMD5(stored, salt)))
}

func (l *login) beginSCRAM(r *reader) error {
	if l.scram != nil {
		return errors.New("the server begins a second SCRAM exchange")
	}
	c := l.o.Credential
	if c.Password == "" && c.SCRAM == nil {
		return fmt.Errorf("%w: it asks for SCRAM, and there are neither a password nor SCRAM keys", ErrCredential)
	}
	var offered []string
	for name := r.string(); name != ""; name = r.string() {
		offered = append(offered, name)
	}
	if r.failed {
		return errors.New("malformed list of SASL mechanisms")
	}
	l.scram = &scramClient{credential: c}
	if t := l.server.TLS; t != nil && len(t.PeerCertificates) > 0 {
		l.scram.endPoint = endPoint(t.PeerCertificates[0])
	}
	chosen, message, err := l.scram.begin(offered)
	if err != nil {
		return err
	}
	body := binary.BigEndian.AppendUint32(text(nil, chosen), uint32(len(message)))
	return l.answer(append(body, message...))
}

func (l *login) continueSCRAM(message []byte) error {
	if l.scram == nil || l.scram.exchange != "" {
		return errors.New("the server continues a SCRAM exchange that there is not")
	}
	answer, err := l.scram.prove(string(message))
	if err != nil {
		return err
	}
	return l.answer([]byte(answer))
}

func (l *login) endSCRAM(message []byte) error {
	if l.scram == nil || l.scram.exchange == "" {
		return errors.New("the server ends a SCRAM exchange that there is not")
	}
	if err := l.scram.check(string(message)); err != nil {
		return err
	}
	l.proved = true
	return nil
}
