package cluster

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning (PostgreSQL manual, pg_lsn). Zero means unknown.
type LSN uint64

// String renders the position as PostgreSQL does, for instance 0/5000148.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l))
}

// ParseLSN reads the text form of a pg_lsn.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(strings.TrimSpace(s), "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: expected two hexadecimal numbers joined by a slash", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// Behind tells by how many bytes l lies behind other; zero when it does not.
func (l LSN) Behind(other LSN) uint64 {
	if other <= l {
		return 0
	}
	return uint64(other - l)
}

// Timeline is PostgreSQL's timeline id. Zero means unknown.
type Timeline uint32
