package cluster

import (
	"fmt"
	"strings"
)

// SlotName is the name of a member's replication slot (Patroni, slot names): lower case, - and . become _, any other
// character outside [a-z0-9_] becomes u and its code point in at least four decimal digits; at most 63 bytes.
func SlotName(member string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(member) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			b.WriteRune(c)
		case c == '-', c == '.':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "u%04d", c)
		}
	}
	name := b.String()
	return name[:min(len(name), 63)]
}
