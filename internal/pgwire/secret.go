package pgwire

// Secret is what is stored of a user's password. The zero value is that of a user without password, who can never prove one.
// Printing it shows its kind only.
type Secret struct{}

// ParseSecret reads a secret as pg_shadow or userlist.txt has it: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>,
// md5 and 32 hexadecimal digits, anything else in plain text. An empty text is no password.
func ParseSecret(text string) Secret { return Secret{} }

// Credential is what one can log in to a server as: the part of a secret, or of what a client proved, that is enough
// for it. Any subset may be set; Login uses what the server asks for. The zero value serves trust and certificates.
// Printing it shows its kinds only.
type Credential struct {
	Password string     // serves every method
	MD5      string     // the stored form, "md5…": serves md5
	SCRAM    *SCRAMKeys // serve a server that stores the same secret
}

// SCRAMKeys are what remains of a SCRAM exchange with a client: ClientKey proves the password to a server which stores the same
// secret, ServerKey recognizes that server. They are as good as the password for such a server.
type SCRAMKeys struct {
	Iterations int
	Salt       []byte
	ClientKey  []byte
	ServerKey  []byte
}

// Credential is what a secret alone allows for: plain text and MD5 are enough, a SCRAM secret is not.
func (s Secret) Credential() Credential { return Credential{} }
