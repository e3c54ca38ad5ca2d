package pgwire

import "fmt"

// Version is a version of the protocol as it stands in the startup packet: major in the upper 16 bits, minor in the lower.
type Version uint32

// The versions that are spoken in both directions. 3.2 (PostgreSQL 18) differs in the length of the cancel key.
const (
	Version30 Version = 3 << 16
	Version32 Version = 3<<16 | 2
)

// Major and Minor are the parts of a version.
func (v Version) Major() int { return int(v >> 16) }

// Minor is the part of a version that two sides may differ in.
func (v Version) Minor() int { return int(v & 0xffff) }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// Param is a startup parameter or a reported setting.
type Param struct{ Name, Value string }

// CancelKey is what BackendKeyData gives out and a cancel request shows. The secret has 4 bytes in protocol 3.0, and up to
// 256 in 3.2.
type CancelKey struct {
	PID    uint32
	Secret []byte
}

// Bounds of what is accepted from outside.
const (
	// maxStartup is PostgreSQL's MAX_STARTUP_PACKET_LENGTH, without the length word.
	maxStartup = 10000
	// maxCancelKey is the longest secret of a cancel key in protocol 3.2.
	maxCancelKey = 256
	// maxReply bounds a message that a server sends during the login: libpq's own bound.
	maxReply = 30000
	// maxReplies bounds how many messages a server sends during the login.
	maxReplies = 1000
)
