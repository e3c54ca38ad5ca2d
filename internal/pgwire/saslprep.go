package pgwire

import (
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
)

// saslprep normalizes a password as PostgreSQL does: by RFC 4013, but a password that this does not allow for, is not
// UTF-8, or is plain ASCII stays as it is.
func saslprep(password string) string {
	if ascii(password) || !utf8.ValidString(password) {
		return password
	}
	p := stringprep.SASLprep
	// Space first: PostgreSQL takes U+200B, which is in both tables, for a space.
	p.Mappings = []stringprep.Mapping{p.Mappings[1], p.Mappings[0]}
	prepared, err := p.Prepare(password)
	if err != nil || prepared == "" {
		return password
	}
	return prepared
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
