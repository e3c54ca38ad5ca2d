package schema

import (
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/tree"
)

// Mask stands for a secret in everything that is printed.
const Mask = "******"

// IsSecret tells whether a key holds a secret: by the table, and by its name where the table leaves it open (extra
// keys of custom methods, tags, parameters such as ssl_passphrase_command).
func IsSecret(path string, s *Table) bool {
	if k := s.At(path); k != nil && k.Key.Kind == Secret {
		return true
	}
	_, last, _ := tree.CutLast(path)
	return SecretName(last)
}

// SecretName tells whether the last part of a key says that it holds a secret.
func SecretName(last string) bool {
	last = strings.ToLower(last)
	if strings.HasSuffix(last, "_file") || last == "password_encryption" {
		return false
	}
	return slices.ContainsFunc([]string{"password", "passphrase", "secret"}, func(word string) bool { return strings.Contains(last, word) })
}

// MaskInside hides passwords within connection strings, URLs and commands.
func MaskInside(s string) string {
	for _, word := range []string{"password=", "PASSWORD="} {
		if i := strings.Index(s, word); i >= 0 {
			rest := s[i+len(word):]
			end := strings.IndexAny(rest, " &\"")
			if end < 0 {
				end = len(rest)
			}
			s = s[:i+len(word)] + Mask + rest[end:]
		}
	}
	if scheme := strings.Index(s, "://"); scheme >= 0 {
		authority := s[scheme+3:]
		if end := strings.IndexAny(authority, "/ ?"); end >= 0 {
			authority = authority[:end]
		}
		user, _, found := strings.Cut(authority, "@")
		if name, _, ok := strings.Cut(user, ":"); found && ok {
			s = strings.Replace(s, user+"@", name+":"+Mask+"@", 1)
		}
	}
	return s
}
