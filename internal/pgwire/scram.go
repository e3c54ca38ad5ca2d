package pgwire

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// SASL mechanisms. PLUS binds the exchange to the TLS session, so that nobody can stand in between.
const (
	mechanism     = "SCRAM-SHA-256"
	mechanismPlus = "SCRAM-SHA-256-PLUS"
)

// bindingName is the only kind of channel binding that PostgreSQL has.
const bindingName = "tls-server-end-point"

var errSCRAM = errors.New("malformed SCRAM message")

// keysOf are the keys of a password (RFC 5802, section 3).
func keysOf(password string, salt []byte, iterations int) *SCRAMKeys {
	salted, err := pbkdf2.Key(sha256.New, saslprep(password), salt, iterations, sha256.Size)
	if err != nil {
		panic("pgwire: pbkdf2: " + err.Error()) // only for lengths that cannot be, and in FIPS mode
	}
	return &SCRAMKeys{Iterations: iterations, Salt: salt,
		ClientKey: mac(salted, "Client Key"), ServerKey: mac(salted, "Server Key")}
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	subtle.XORBytes(out, a, b)
	return out
}

// newNonce is printable and has no comma.
func newNonce() string {
	b := make([]byte, 18)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// attribute takes "k=value" off the front of a message, and the comma behind it.
func attribute(message string, key byte) (value, rest string, err error) {
	if len(message) < 2 || message[0] != key || message[1] != '=' {
		return "", "", fmt.Errorf("%w: expected attribute %q", errSCRAM, key)
	}
	value, rest, _ = strings.Cut(message[2:], ",")
	return value, rest, nil
}

// printable tells whether a nonce has only the characters that RFC 5802 allows for.
func printable(nonce string) bool {
	for i := range len(nonce) {
		if nonce[i] < 0x21 || nonce[i] > 0x7e {
			return false
		}
	}
	return nonce != ""
}

// clientFirst is a client's first message.
type clientFirst struct {
	flag    byte   // n: no channel binding; y: it would, but thinks that we cannot; p: it does
	binding string // with p: its kind
	header  string // GS2 header, up to and with its second comma
	bare    string
	nonce   string
}

// parseClientFirst reads a client's first message. The user's name in it is ignored, as PostgreSQL does: the one in the
// startup packet counts.
func parseClientFirst(message string) (clientFirst, error) {
	var f clientFirst
	flag, rest, ok1 := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return f, fmt.Errorf("%w: no GS2 header", errSCRAM)
	}
	switch {
	case flag == "n" || flag == "y":
	case strings.HasPrefix(flag, "p="):
		f.binding = flag[2:]
	default:
		return f, fmt.Errorf("%w: channel binding flag %.10q", errSCRAM, flag)
	}
	if authzid != "" {
		return f, fmt.Errorf("%w: an authorization identity is not supported", errSCRAM)
	}
	f.flag, f.bare, f.header = flag[0], bare, message[:len(message)-len(bare)]
	if strings.HasPrefix(bare, "m=") {
		return f, fmt.Errorf("%w: it requires an extension that is not supported", errSCRAM)
	}
	_, rest, err := attribute(bare, 'n')
	if err != nil {
		return f, err
	}
	if f.nonce, _, err = attribute(rest, 'r'); err != nil {
		return f, err
	}
	if !printable(f.nonce) {
		return f, fmt.Errorf("%w: non-printable characters in the nonce", errSCRAM)
	}
	return f, nil
}

// clientFinal is a client's last message.
type clientFinal struct {
	binding string // decoded: GS2 header, and with p the hash of the certificate
	nonce   string
	proof   []byte
	without string // the message without its proof
}

func parseClientFinal(message string) (clientFinal, error) {
	var f clientFinal
	binding, rest, err := attribute(message, 'c')
	if err != nil {
		return f, err
	}
	raw, err := base64.StdEncoding.DecodeString(binding)
	if err != nil {
		return f, fmt.Errorf("%w: channel binding: %w", errSCRAM, err)
	}
	f.binding = string(raw)
	if f.nonce, _, err = attribute(rest, 'r'); err != nil {
		return f, err
	}
	at := strings.LastIndex(message, ",p=") // extensions may stand before the proof, nothing after it
	if at < 0 {
		return f, fmt.Errorf("%w: no proof", errSCRAM)
	}
	f.without = message[:at]
	if f.proof, err = base64.StdEncoding.DecodeString(message[at+3:]); err != nil || len(f.proof) != sha256.Size {
		return f, fmt.Errorf("%w: proof of %d bytes", errSCRAM, len(f.proof))
	}
	return f, nil
}

// serverFirst is a server's first message.
type serverFirst struct {
	nonce      string
	salt       []byte
	iterations int
}

func parseServerFirst(message string) (serverFirst, error) {
	var f serverFirst
	var salt, count string
	var err error
	if f.nonce, message, err = attribute(message, 'r'); err != nil {
		return f, err
	}
	if salt, message, err = attribute(message, 's'); err != nil {
		return f, err
	}
	if count, _, err = attribute(message, 'i'); err != nil {
		return f, err
	}
	if f.salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(f.salt) == 0 {
		return f, fmt.Errorf("%w: salt", errSCRAM)
	}
	if f.iterations, err = strconv.Atoi(count); err != nil || f.iterations < 1 || f.iterations > maxIterations {
		return f, fmt.Errorf("%w: %.20q iterations, want 1 to %d", errSCRAM, count, maxIterations)
	}
	if !printable(f.nonce) {
		return f, fmt.Errorf("%w: non-printable characters in the nonce", errSCRAM)
	}
	return f, nil
}

// parseServerFinal reads a server's last message: its signature, or why it does not want us.
func parseServerFinal(message string) ([]byte, error) {
	if reason, _, err := attribute(message, 'e'); err == nil {
		return nil, fmt.Errorf("the server ended the SCRAM exchange: %.100q", reason)
	}
	value, _, err := attribute(message, 'v')
	if err != nil {
		return nil, err
	}
	signature, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(signature) != sha256.Size {
		return nil, fmt.Errorf("%w: signature of %d bytes", errSCRAM, len(signature))
	}
	return signature, nil
}
