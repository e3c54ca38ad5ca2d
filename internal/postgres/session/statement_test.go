package session

import "testing"

func TestQuoting(t *testing.T) {
	for got, want := range map[string]string{
		QuoteIdent(`a"b`):    `"a""b"`,
		QuoteLiteral(`it's`): `'it''s'`,
		QuoteLiteral(`a\'b`): ` E'a\\''b'`,
		Conninfo([]Keyword{{"host", "a"}, {"user", ""}, {"password", `p 'q\`}}): `host=a password='p \'q\\'`,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
