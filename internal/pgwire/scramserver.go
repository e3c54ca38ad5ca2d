package pgwire

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
)

// scramServer is the server's part of one SCRAM exchange, without the messages around it.
type scramServer struct {
	verifier *verifier
	mock     bool   // the verifier is of nobody's password: whatever the client proves fails
	endPoint []byte // channel binding of our certificate; nil: PLUS is not offered
	first    clientFirst
	sent     string // our first message
	nonce    string
}

var errProof = errors.New("the password is wrong")

// mechanisms are what the client may choose from, the best first.
func (s *scramServer) mechanisms() []string {
	if s.endPoint != nil {
		return []string{mechanismPlus, mechanism}
	}
	return []string{mechanism}
}

// begin answers the client's first message.
func (s *scramServer) begin(chosen, message string) (string, error) {
	var err error
	if s.first, err = parseClientFirst(message); err != nil {
		return "", err
	}
	if err := s.checkBinding(chosen); err != nil {
		return "", err
	}
	s.nonce = s.first.nonce + newNonce()
	s.sent = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.verifier.salt), s.verifier.iterations)
	return s.sent, nil
}

// checkBinding holds the client's flag against the mechanism that it chose. A client that could bind the channel and
// thinks that we cannot has been lied to about what we offered: somebody is in between (RFC 5802, section 6).
func (s *scramServer) checkBinding(chosen string) error {
	plus := chosen == mechanismPlus && s.endPoint != nil
	switch {
	case !plus && chosen != mechanism:
		return fmt.Errorf("%w: mechanism %.40q was not offered", errSCRAM, chosen)
	case plus != (s.first.flag == 'p'):
		return fmt.Errorf("%w: channel binding flag %q does not go with %s", errSCRAM, s.first.flag, chosen)
	case plus && s.first.binding != bindingName:
		return fmt.Errorf("%w: channel binding type %.40q is not supported", errSCRAM, s.first.binding)
	case s.first.flag == 'y' && s.endPoint != nil:
		return errors.New("the client supports channel binding and was not offered it, though it was offered: " +
			"somebody changes the messages on the way")
	}
	return nil
}

// end judges the client's last message: errProof if the password was wrong. It returns our last message and the client's keys.
func (s *scramServer) end(message string) (string, *SCRAMKeys, error) {
	f, err := parseClientFinal(message)
	if err != nil {
		return "", nil, err
	}
	want := s.first.header
	if s.first.flag == 'p' {
		want += string(s.endPoint)
	}
	if subtle.ConstantTimeCompare([]byte(f.binding), []byte(want)) != 1 {
		return "", nil, errors.New("SCRAM channel binding check failed: the TLS session of the client ends somewhere else")
	}
	if f.nonce != s.nonce {
		return "", nil, fmt.Errorf("%w: the nonce is another", errSCRAM)
	}
	exchange := s.first.bare + "," + s.sent + "," + f.without
	key := xor(f.proof, mac(s.verifier.storedKey, exchange))
	right := subtle.ConstantTimeCompare(sum(key), s.verifier.storedKey) == 1
	if !right || s.mock {
		return "", nil, errProof
	}
	signature := base64.StdEncoding.EncodeToString(mac(s.verifier.serverKey, exchange))
	return "v=" + signature, &SCRAMKeys{Iterations: s.verifier.iterations, Salt: s.verifier.salt,
		ClientKey: key, ServerKey: s.verifier.serverKey}, nil
}

// mockVerifier is what an unknown user is shown: the same each time, as that of a user who exists would be, and not to be told from
// one without knowing the key.
func mockVerifier(key []byte, user string) *verifier {
	random := mac(key, user)
	return &verifier{iterations: madeIterations, salt: mac(random, "salt")[:madeSalt],
		storedKey: mac(random, "stored key")[:sha256.Size], serverKey: mac(random, "server key")}
}
