package pgwire

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

// Secret is what is stored of a user's password. The zero value is that of a user without password, who can never prove
// one. Printing it shows its kind only.
type Secret struct {
	plain, md5 string
	// scram gives what SCRAM compares with: as stored, or made of the plain text when it is first needed and then kept,
	// since that takes thousands of hashes.
	scram  func() *verifier
	stored bool // scram is as stored
}

// ParseSecret reads a secret as pg_shadow or userlist.txt has it: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>,
// md5 and 32 hexadecimal digits, anything else in plain text. An empty text is no password.
//
// Keep the Secret rather than the text if it may be in plain: the keys that SCRAM needs are then made only once.
func ParseSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	if v, ok := parseVerifier(text); ok {
		return Secret{scram: func() *verifier { return v }, stored: true}
	}
	if isMD5(text) {
		return Secret{md5: text}
	}
	return Secret{plain: text, scram: sync.OnceValue(func() *verifier { return newVerifier(text) })}
}

func (s Secret) kind() string {
	switch {
	case s.stored:
		return "SCRAM"
	case s.md5 != "":
		return "MD5"
	case s.plain != "":
		return "plain text"
	}
	return "none"
}

func (s Secret) String() string { return "secret of kind " + s.kind() }

// GoString keeps the content out of %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the content out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Credential is what a secret alone allows for: plain text and MD5 are enough, a SCRAM secret is not.
func (s Secret) Credential() Credential { return Credential{Password: s.plain, MD5: s.md5} }

// matches tells whether that is the password, for a user of that name.
func (s Secret) matches(user, password string) bool {
	switch {
	case password == "":
		return false // PostgreSQL refuses empty passwords whatever is stored
	case s.stored:
		return s.scram().matches(password)
	case s.md5 != "":
		return subtle.ConstantTimeCompare([]byte(strings.ToLower(s.md5)), []byte(storedMD5(user, password))) == 1
	case s.plain != "":
		a, b := sha256.Sum256([]byte(s.plain)), sha256.Sum256([]byte(password)) // of one length
		return subtle.ConstantTimeCompare(a[:], b[:]) == 1
	}
	return false
}

// isMD5 tells whether a text is an MD5 secret as PostgreSQL recognizes one.
func isMD5(text string) bool {
	digits, ok := strings.CutPrefix(text, "md5")
	if !ok || len(digits) != 2*md5.Size {
		return false
	}
	_, err := hex.DecodeString(digits)
	return err == nil
}

// storedMD5 is the MD5 secret of a password.
func storedMD5(user, password string) string { return "md5" + hexMD5(password, user) }

// answerMD5 is what proves an MD5 secret for the salt of one exchange.
func answerMD5(stored string, salt []byte) string {
	return "md5" + hexMD5(strings.ToLower(strings.TrimPrefix(stored, "md5")), string(salt))
}

func hexMD5(a, b string) string {
	sum := md5.Sum([]byte(a + b))
	return hex.EncodeToString(sum[:])
}

// verifier is a SCRAM secret: what a server compares a proof with.
type verifier struct {
	iterations                 int
	salt, storedKey, serverKey []byte
}

// Figures of the verifiers that are made here: PostgreSQL's defaults.
const (
	madeIterations = 4096
	madeSalt       = 16
)

// maxIterations is a bound on the hashes that a peer can make us compute; it takes about half a second.
const maxIterations = 1_000_000

const verifierPrefix = "SCRAM-SHA-256$"

// parseVerifier reads a SCRAM secret. What is not whole is none, as for PostgreSQL, which then takes it for plain text.
func parseVerifier(text string) (*verifier, bool) {
	rest, ok := strings.CutPrefix(text, verifierPrefix)
	if !ok {
		return nil, false
	}
	head, keys, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok1 || !ok2 || !ok3 {
		return nil, false
	}
	n, err := strconv.ParseInt(count, 10, 32)
	if err != nil || n < 1 {
		return nil, false
	}
	v := &verifier{iterations: int(n)}
	for _, part := range []struct {
		to   *[]byte
		text string
		size int
	}{{&v.salt, salt, 0}, {&v.storedKey, stored, sha256.Size}, {&v.serverKey, server, sha256.Size}} {
		*part.to, err = base64.StdEncoding.DecodeString(part.text)
		if err != nil || part.size != 0 && len(*part.to) != part.size {
			return nil, false
		}
	}
	return v, true
}

// String is the form that parseVerifier reads.
func (v *verifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", verifierPrefix, v.iterations, b64(v.salt), b64(v.storedKey), b64(v.serverKey))
}

// newVerifier makes a verifier of a password, with a new salt.
func newVerifier(password string) *verifier {
	salt := make([]byte, madeSalt)
	rand.Read(salt) // never fails
	return verifierOf(password, salt, madeIterations)
}

func verifierOf(password string, salt []byte, iterations int) *verifier {
	k := keysOf(password, salt, iterations)
	return &verifier{iterations: iterations, salt: salt, storedKey: sum(k.ClientKey), serverKey: k.ServerKey}
}

// matches tells whether that is the password.
func (v *verifier) matches(password string) bool {
	if v.iterations > maxIterations {
		return false
	}
	return subtle.ConstantTimeCompare(verifierOf(password, v.salt, v.iterations).storedKey, v.storedKey) == 1
}

// Credential is what one can log in to a server as: the part of a secret, or of what a client proved, that is enough
// for it. Any subset may be set; Login uses what the server asks for. The zero value serves trust and certificates.
// Printing it shows its kinds only.
type Credential struct {
	Password string     // serves every method
	MD5      string     // the stored form, "md5…": serves md5
	SCRAM    *SCRAMKeys // serve a server that stores the same secret
}

// Renewed is c after a later login of the same user, which came with another credential. What that lacks stays, unless it
// shows that the password has changed.
func (c Credential) Renewed(by Credential, user string) Credential {
	switch {
	case by.Password != "":
		c.Password, c.MD5 = by.Password, by.MD5
	case by.MD5 != "":
		if c.Password != "" && !strings.EqualFold(by.MD5, storedMD5(user, c.Password)) {
			c.Password = ""
		}
		c.MD5 = by.MD5
	}
	if by.SCRAM != nil {
		c.SCRAM = by.SCRAM
	}
	return c
}

// SCRAMKeys are what remains of a SCRAM exchange with a client: ClientKey proves the password to a server which stores the
// same secret, ServerKey recognizes that server. They are as good as the password for such a server.
type SCRAMKeys struct {
	Iterations int
	Salt       []byte
	ClientKey  []byte
	ServerKey  []byte
}

// fit tells whether the keys are of a secret with that salt and number of iterations.
func (k SCRAMKeys) fit(salt []byte, iterations int) bool {
	return k.Iterations == iterations && bytes.Equal(k.Salt, salt)
}

func (k SCRAMKeys) String() string { return "SCRAM keys" }

// GoString keeps the content out of %#v.
func (k SCRAMKeys) GoString() string { return k.String() }

func (c Credential) String() string {
	var kinds []string
	if c.Password != "" {
		kinds = append(kinds, "password")
	}
	if c.MD5 != "" {
		kinds = append(kinds, "MD5 hash")
	}
	if c.SCRAM != nil {
		kinds = append(kinds, "SCRAM keys")
	}
	return "credential: " + strings.Join(kinds, ", ")
}

// GoString keeps the content out of %#v.
func (c Credential) GoString() string { return c.String() }

// LogValue keeps the content out of logs.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }
