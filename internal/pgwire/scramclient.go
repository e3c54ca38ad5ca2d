package pgwire

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// scramClient is the client's part of one SCRAM exchange, without the messages around it.
type scramClient struct {
	credential Credential
	endPoint   []byte // channel binding of the server's certificate; nil: there is none

	header, bare, nonce string
	keys                *SCRAMKeys
	exchange            string
}

// begin chooses a mechanism and makes our first message. The user's name in it is empty, as libpq leaves it.
func (s *scramClient) begin(offered []string) (chosen, message string, err error) {
	s.header = "n,,"
	chosen = mechanism
	switch {
	case s.endPoint != nil && slices.Contains(offered, mechanismPlus):
		chosen, s.header = mechanismPlus, "p="+bindingName+",,"
	case !slices.Contains(offered, mechanism):
		return "", "", fmt.Errorf("none of the server's SASL mechanisms is supported: %.100q", offered)
	case s.endPoint != nil:
		s.header = "y,," // a server that did offer it learns that somebody is in between
	}
	s.nonce = newNonce()
	s.bare = "n=,r=" + s.nonce
	return chosen, s.header + s.bare, nil
}

// prove answers the server's first message.
func (s *scramClient) prove(message string) (string, error) {
	f, err := parseServerFirst(message)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(f.nonce, s.nonce) || f.nonce == s.nonce {
		return "", fmt.Errorf("%w: the nonce is not ours", errSCRAM)
	}
	if s.keys, err = s.credential.scramKeys(f); err != nil {
		return "", err
	}
	bound := s.header
	if s.header[0] == 'p' {
		bound += string(s.endPoint)
	}
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(bound)) + ",r=" + f.nonce
	s.exchange = s.bare + "," + message + "," + without
	proof := xor(s.keys.ClientKey, mac(sum(s.keys.ClientKey), s.exchange))
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// scramKeys are the keys that serve a server which shows that salt.
func (c Credential) scramKeys(f serverFirst) (*SCRAMKeys, error) {
	switch {
	case c.SCRAM != nil && c.SCRAM.fit(f.salt, f.iterations):
		return c.SCRAM, nil
	case c.Password != "":
		return keysOf(c.Password, f.salt, f.iterations), nil
	case c.SCRAM != nil:
		return nil, fmt.Errorf("%w: it stores another SCRAM secret than the one that the client proved", ErrCredential)
	}
	return nil, fmt.Errorf("%w: it asks for SCRAM, and there are neither a password nor SCRAM keys", ErrCredential)
}

// check judges the server's last message.
func (s *scramClient) check(message string) error {
	signature, err := parseServerFinal(message)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(signature, mac(s.keys.ServerKey, s.exchange)) != 1 {
		return ErrImposter
	}
	return nil
}
