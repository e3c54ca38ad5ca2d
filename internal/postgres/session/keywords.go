package session

import "strings"

// Keyword is the name and the value of one keyword=value of a libpq connection string.
type Keyword [2]string

// Conninfo renders keywords as libpq reads them (PostgreSQL manual, "Keyword/Value Connection Strings"); empty values
// are left out.
func Conninfo(words []Keyword) string {
	var parts []string
	for _, w := range words {
		if w[1] == "" {
			continue
		}
		v := w[1]
		if strings.ContainsAny(v, " '\\\t\n") {
			v = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
		}
		parts = append(parts, w[0]+"="+v)
	}
	return strings.Join(parts, " ")
}
