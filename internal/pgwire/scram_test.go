package pgwire

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestRFC7677 is the exchange of the RFC's section 3, in which the client names the user, and the nonces are given.
func TestRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	pgtest.Must(t, err)
	v := verifierOf("pencil", salt, 4096)
	first, err := parseClientFirst("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
	pgtest.Must(t, err)
	s := scramServer{verifier: v, first: first, nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
		sent: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"}
	last, keys, err := s.end("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	if err != nil || last != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("%s, %v", last, err)
	}
	if want := keysOf("pencil", salt, 4096); string(keys.ClientKey) != string(want.ClientKey) {
		t.Error("the keys learnt are not those of the password")
	}
	c := scramClient{keys: keys, exchange: first.bare + "," + s.sent + ",c=biws,r=" + s.nonce}
	pgtest.Must(t, c.check(last))
}

// exchange runs both of our parts against each other; change, if not nil, may change messages on the way.
func exchange(server *scramServer, client *scramClient, change func(step int, message string) string) (*SCRAMKeys, error) {
	if change == nil {
		change = func(_ int, m string) string { return m }
	}
	chosen, message, err := client.begin(strings.Split(change(0, strings.Join(server.mechanisms(), " ")), " "))
	if err != nil {
		return nil, err
	}
	if message, err = server.begin(chosen, change(1, message)); err != nil {
		return nil, err
	}
	if message, err = client.prove(change(2, message)); err != nil {
		return nil, err
	}
	message, keys, err := server.end(change(3, message))
	if err != nil {
		return nil, err
	}
	return keys, client.check(change(4, message))
}

func TestSCRAM(t *testing.T) {
	v := newVerifier("right")
	right, wrong := Credential{Password: "right"}, Credential{Password: "wrong"}
	replace := func(at int, old, new string) func(int, string) string {
		return func(step int, m string) string {
			if step != at {
				return m
			}
			if !strings.Contains(m, old) {
				t.Errorf("step %d: %q has no %q", step, m, old)
			}
			return strings.Replace(m, old, new, 1)
		}
	}
	cert, other := []byte("hash of our certificate"), []byte("hash of another one")
	for _, c := range []struct {
		name           string
		server, client []byte // channel bindings
		credential     Credential
		change         func(int, string) string
		want           string
	}{
		{"plain", nil, nil, right, nil, ""},
		{"bound", cert, cert, right, nil, ""},
		{"only the client can bind", nil, cert, right, nil, ""},
		{"only the server can bind", cert, nil, right, nil, ""},
		{"wrong password", nil, nil, wrong, nil, errProof.Error()},
		{"wrong password, bound", cert, cert, wrong, nil, errProof.Error()},
		{"a TLS session in between", cert, other, right, nil, "channel binding check failed"},
		{"PLUS taken away on the way", cert, cert, right, replace(0, mechanismPlus+" ", ""), "somebody changes the messages"},
		{"flag y made n", cert, cert, right, func(step int, m string) string {
			if step == 0 {
				return mechanism
			}
			if step == 1 {
				return strings.Replace(m, "y,,", "n,,", 1)
			}
			return m
		}, "channel binding check failed"},
		{"unknown binding", cert, cert, right, replace(1, bindingName, "tls-unique"), "tls-unique"},
		{"plain mechanism, bound flag", nil, nil, right, replace(1, "n,,", "p="+bindingName+",,"), "does not go with"},
		{"authorization identity", nil, nil, right, replace(1, "n,,", "n,a=root,"), "authorization identity"},
		{"extension", nil, nil, right, replace(1, "n,,", "n,,m=x,"), "extension"},
		{"no header", nil, nil, right, replace(1, "n,,", "n"), "malformed"},
		{"flag", nil, nil, right, replace(1, "n,,", "z,,"), "flag"},
		{"nonce of the client's", nil, nil, right, replace(1, "r=", "r=\x01"), "non-printable"},
		{"another nonce", nil, nil, right, replace(2, "r=", "r=x"), "not ours"},
		{"no nonce of the server's", nil, nil, right, func(step int, m string) string {
			if step == 2 {
				nonce, rest, _ := strings.Cut(m, ",s=")
				return nonce[:26] + ",s=" + rest
			}
			return m
		}, "not ours"},
		{"many iterations", nil, nil, right, replace(2, "i=4096", "i=2000000000"), "iterations"},
		{"no iterations", nil, nil, right, replace(2, "i=4096", "i=0"), "iterations"},
		{"odd salt", nil, nil, right, replace(2, "s=", "s=!"), "salt"},
		{"final nonce", nil, nil, right, replace(3, ",r=", ",r=x"), "nonce"},
		{"no proof", nil, nil, right, replace(3, ",p=", ",q="), "no proof"},
		{"short proof", nil, nil, right, replace(3, ",p=", ",p=A"), "proof"},
		{"an extension before the proof", nil, nil, right, replace(3, ",p=", ",x=1,p="), errProof.Error()}, // it is part of what is signed
		{"wrong signature", nil, nil, right, replace(4, "v=", "v=AAAA"), "malformed"},
		{"a signature of zeroes", nil, nil, right, func(step int, m string) string {
			if step == 4 {
				return "v=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
			}
			return m
		}, ErrImposter.Error()},
		{"an error instead", nil, nil, right, replace(4, "v=", "e="), "ended the SCRAM exchange"},
	} {
		keys, err := exchange(&scramServer{verifier: v, endPoint: c.server}, &scramClient{credential: c.credential, endPoint: c.client}, c.change)
		if c.want == "" && (err != nil || keys == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestKeysPassThrough: what the server's part learns of a client's proof is enough for the client's part at another server.
func TestKeysPassThrough(t *testing.T) {
	v := newVerifier("right")
	keys, err := exchange(&scramServer{verifier: v}, &scramClient{credential: Credential{Password: "right"}}, nil)
	pgtest.Must(t, err)
	_, err = exchange(&scramServer{verifier: v}, &scramClient{credential: Credential{SCRAM: keys}}, nil)
	pgtest.Must(t, err)
	_, err = exchange(&scramServer{verifier: newVerifier("right")}, &scramClient{credential: Credential{SCRAM: keys}}, nil)
	if !errors.Is(err, ErrCredential) {
		t.Errorf("with another salt: %v", err)
	}
}

func TestMockVerifiers(t *testing.T) {
	a := authenticator(t, SCRAM, nil)
	one, again, other := a.mock("one"), a.mock("one"), a.mock("other")
	if one.String() != again.String() {
		t.Error("the same name is shown two salts")
	}
	if string(one.salt) == string(other.salt) || one.iterations != newVerifier("x").iterations || len(one.salt) != len(newVerifier("x").salt) {
		t.Error("a mock verifier does not look like a real one")
	}
	if b := authenticator(t, SCRAM, nil).mock("one"); string(b.salt) == string(one.salt) {
		t.Error("the key of the mock verifiers is not random")
	}
	// Even somebody who found a password for it is not let in.
	_, err := exchange(&scramServer{verifier: newVerifier("x"), mock: true}, &scramClient{credential: Credential{Password: "x"}}, nil)
	if !errors.Is(err, errProof) {
		t.Errorf("%v", err)
	}
}

func TestParseSecret(t *testing.T) {
	v := newVerifier("x").String()
	for text, kind := range map[string]string{
		"": "none", v: "SCRAM", "md5" + strings.Repeat("0a", 16): "MD5", "md5" + strings.Repeat("0A", 16): "MD5",
		"md5" + strings.Repeat("0g", 16): "plain text", "md5short": "plain text", "geheim": "plain text",
		v[:len(v)-1]: "plain text", strings.Replace(v, ":", ";", 1): "plain text", strings.Replace(v, "4096", "0", 1): "plain text",
		strings.Replace(v, "4096", "99999999999", 1): "plain text", "SCRAM-SHA-256$": "plain text", v + "x": "plain text",
	} {
		if got := ParseSecret(text).kind(); got != kind {
			t.Errorf("%s is of kind %s, want %s", text, got, kind)
		}
	}
	if again, ok := parseVerifier(v); !ok || again.String() != v {
		t.Errorf("%s comes back as %v", v, again)
	}
	if !ParseSecret(storedMD5("u", "right")).matches("u", "right") || ParseSecret(storedMD5("u", "right")).matches("v", "right") {
		t.Error("MD5 secrets")
	}
	if ParseSecret("").matches("u", "") || ParseSecret("x").matches("u", "") {
		t.Error("an empty password matches")
	}
}
