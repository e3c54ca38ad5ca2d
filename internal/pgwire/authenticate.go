package pgwire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Codes of authentication messages, the same in both directions.
const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// maxSASL bounds a client's SASL message, maxPassword its password. PostgreSQL's own bounds are 1024 and 65535.
const (
	maxSASL     = 1024
	maxPassword = 16384
)

// authenticate lets the client prove who it is, and leaves AuthenticationOk to be sent.
func (a *acceptance) authenticate(ctx context.Context) error {
	method, told := a.o.Auth.method(a.candidate())
	if told != nil {
		return refused(told, nil)
	}
	secret, err := a.o.Auth.o.Secrets.Secret(ctx, a.client.User)
	unknown := errors.Is(err, ErrUnknownUser)
	if err != nil && !unknown && method.compares() {
		return refused(&Error{Code: "57P03", Message: "the password could not be looked up", Hint: "Try again later."},
			fmt.Errorf("look up the secret: %w", err))
	}
	if err != nil {
		secret = Secret{}
	}
	if err := a.prove(method, secret); err != nil {
		if unknown {
			err = fmt.Errorf("%w (there is no such user)", err)
		}
		return err
	}
	a.out = appendAuth(a.out, authOK, nil)
	return nil
}

// compares tells whether a method needs the stored secret.
func (m Method) compares() bool { return m == Password || m == MD5 || m == SCRAM }

// prove runs the exchange of the method. A user without a proper secret gets as far as one with a wrong password.
func (a *acceptance) prove(method Method, secret Secret) error {
	a.client.Credential = secret.Credential()
	switch {
	case method == Trust:
		return nil
	case method == Cert:
		return a.byCertificate()
	case method == Peer:
		return a.byPeer()
	case method == Password:
		return a.byPassword(secret)
	case method == MD5 && !secret.stored: // also without a secret, which no answer matches
		return a.byMD5(secret)
	}
	return a.bySCRAM(secret)
}

// candidate is the client as rules see it.
func (a *acceptance) candidate() candidate {
	c := a.client
	out := candidate{user: c.User, database: c.Database, local: a.local, encrypted: c.TLS != nil}
	for _, p := range c.Params {
		out.replication = out.replication || p.Name == "replication" && c.Replication && p.Value != "database"
	}
	if tcp, ok := a.raw.RemoteAddr().(*net.TCPAddr); ok {
		address, _ := netip.AddrFromSlice(tcp.IP)
		out.address = address.Unmap()
	}
	if c.Certificate != nil {
		out.certified, out.certificate = true, c.Certificate.Subject.CommonName
	}
	return out
}

// failed is what a client is told whose proof was not good enough. It is the same whatever was wrong.
func (a *acceptance) failed(code, what string, reason error) *Refused {
	return refused(&Error{Code: code, Message: fmt.Sprintf("%s authentication failed for user %q", what, a.client.User)}, reason)
}

func (a *acceptance) wrongPassword(reason error) *Refused {
	return a.failed("28P01", "password", reason)
}

func (a *acceptance) byCertificate() error {
	cert := a.client.Certificate
	if cert == nil {
		return a.failed("28000", "certificate", errors.New("no certificate of a known authority was shown"))
	}
	if name := cert.Subject.CommonName; name == "" || name != a.client.User {
		return a.failed("28000", "certificate", fmt.Errorf("the certificate is that of %q", name))
	}
	return nil
}

func (a *acceptance) byPeer() error {
	name, err := peerName(a.raw)
	if err == nil && name != a.client.User {
		err = fmt.Errorf("at the other end of the socket is the user %q", name)
	}
	if err != nil {
		return a.failed("28000", "peer", err)
	}
	return nil
}

func (a *acceptance) byPassword(secret Secret) error {
	if err := a.send(appendAuth(nil, authCleartext, nil)); err != nil {
		return err
	}
	password, err := a.readPassword()
	if err != nil {
		return err
	}
	if !secret.stored {
		a.o.Auth.mock(a.client.User).matches(password) // takes as long as with a secret that is stored for SCRAM
	}
	if !secret.matches(a.client.User, password) {
		return a.wrongPassword(errProof)
	}
	a.client.Credential = Credential{Password: password}
	return nil
}

func (a *acceptance) byMD5(secret Secret) error {
	var salt [4]byte
	rand.Read(salt[:]) // never fails
	if err := a.send(appendAuth(nil, authMD5, salt[:])); err != nil {
		return err
	}
	answer, err := a.readPassword()
	if err != nil {
		return err
	}
	stored := secret.md5
	if stored == "" {
		stored = storedMD5(a.client.User, secret.plain)
	}
	if secret.kind() == "none" {
		return a.wrongPassword(errProof)
	}
	if subtle.ConstantTimeCompare([]byte(answer), []byte(answerMD5(stored, salt[:]))) != 1 {
		return a.wrongPassword(errProof)
	}
	return nil
}

// readPassword reads a PasswordMessage.
func (a *acceptance) readPassword() (string, error) {
	body, err := a.readAuth(maxPassword)
	if err != nil {
		return "", err
	}
	if i := bytes.IndexByte(body, 0); i < 0 || i != len(body)-1 {
		return "", malformed(errors.New("invalid password packet size"))
	}
	return string(body[:len(body)-1]), nil
}

// readAuth reads a message of type p, which all answers of a client have.
func (a *acceptance) readAuth(limit int) ([]byte, error) {
	kind, body, err := readMessage(a.client.Conn, limit)
	switch {
	case errors.Is(err, errTooLong), errors.Is(err, errTooShort):
		return nil, malformed(err)
	case err != nil:
		return nil, err
	case kind != 'p':
		return nil, malformed(fmt.Errorf("expected password response, got message type %d", kind))
	}
	return body, nil
}

// bySCRAM runs the exchange with the user's verifier, or with a mock one if there is none.
func (a *acceptance) bySCRAM(secret Secret) error {
	s := scramServer{endPoint: a.endPoint()}
	if secret.scram != nil {
		s.verifier = secret.scram()
	} else {
		s.verifier, s.mock = a.o.Auth.mock(a.client.User), true
	}
	if err := a.send(appendAuth(nil, authSASL, mechanismList(s.mechanisms()))); err != nil {
		return err
	}
	body, err := a.readAuth(maxSASL)
	if err != nil {
		return err
	}
	chosen, message, err := parseSASLInitial(body)
	if err != nil {
		return malformed(err)
	}
	answer, err := s.begin(chosen, message)
	if err != nil {
		return malformed(err)
	}
	if err := a.send(appendAuth(nil, authSASLContinue, []byte(answer))); err != nil {
		return err
	}
	if body, err = a.readAuth(maxSASL); err != nil {
		return err
	}
	last, keys, err := s.end(string(body))
	switch {
	case errors.Is(err, errProof):
		return a.wrongPassword(fmt.Errorf("%w, or the secret (%s) does not serve SCRAM", err, secret))
	case err != nil:
		return malformed(err)
	}
	a.client.Credential.SCRAM = keys
	a.out = appendAuth(a.out, authSASLFinal, []byte(last))
	return nil
}

// endPoint is the channel binding of this TLS session; nil: none.
func (a *acceptance) endPoint() []byte {
	if a.client.TLS == nil || a.leaf == nil {
		return nil
	}
	return endPoint(a.leaf)
}

// parseSASLInitial reads the body of a SASLInitialResponse.
func parseSASLInitial(body []byte) (chosen, message string, err error) {
	r := reader{b: body}
	chosen = r.string()
	n := int32(r.uint32())
	message = string(r.take(int(n)))
	if r.failed || len(r.b) != 0 {
		return "", "", errors.New("invalid SASL response")
	}
	return chosen, message, nil
}

// mechanismList is the body of AuthenticationSASL.
func mechanismList(names []string) []byte {
	var b []byte
	for _, n := range names {
		b = text(b, n)
	}
	return append(b, 0)
}

// appendAuth appends an authentication message.
func appendAuth(dst []byte, code uint32, data []byte) []byte {
	return finish(dst, func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(b, code), data...) }, 'R')
}
