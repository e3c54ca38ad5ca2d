package api

import (
	"strings"
	"time"
)

// ParseTime reads a time in ISO 8601, with or without seconds, fraction and zone; zoned tells whether it has a zone.
// Without one it is taken as of the location.
func ParseTime(s string, where *time.Location) (t time.Time, zoned, valid bool) {
	s = strings.Replace(strings.TrimSpace(s), " ", "T", 1)
	s = strings.ReplaceAll(s, " ", "")
	for _, clock := range []string{"T15:04:05", "T15:04"} {
		for _, zone := range []string{"Z07:00", "Z0700", "Z07"} {
			if t, err := time.Parse("2006-01-02"+clock+zone, s); err == nil {
				return t, true, true
			}
		}
		if t, err := time.ParseInLocation("2006-01-02"+clock, s, where); err == nil {
			return t, false, true
		}
	}
	return time.Time{}, false, false
}
