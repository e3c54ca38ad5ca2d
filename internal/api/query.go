package api

import (
	"fmt"
	"strconv"
	"strings"
)

// tagText is a tag's value as queries write it: text as it is, everything else in lower case.
func tagText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return strings.ToLower(fmt.Sprint(v))
}

// ParseBytes reads a size: a number of bytes, or one with a unit of PostgreSQL's (kB, MB, GB, TB), of 1024 each.
func ParseBytes(s string) (uint64, bool) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	unit := map[string]float64{"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
	factor, known := unit[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	if !known || n*factor >= 1<<63 {
		return 0, false
	}
	return uint64(n * factor), true
}
