// Package frame knows where messages of the PostgreSQL protocol begin and end after the login, and which replies a session
// owes. It reads no SQL, allocates nothing per message, and touches no connection.
//
// It guarantees:
//   - A message whose type or length makes no sense is an error, never something to be waited for.
//   - A reply that nobody has asked for is an error: who gets one has lost track, and has to give the connection up.
//
// The rules are those of the manual, chapter 55 ("Message Flow", "Message Formats"), and of PostgreSQL's
// src/backend/tcop/postgres.c where the manual is silent.
package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Head is the length of type and length word, which every message begins with.
const Head = 5

// maxMessage is the longest message that PostgreSQL reads or makes (MaxAllocSize).
const maxMessage = 0x3fffffff

// Messages of fixed or of little content are not believed to be longer than this.
const maxShort = 30000

// ErrMessage is in the chain of every error about a message that makes no sense.
var ErrMessage = errors.New("invalid message")

// Next reads the head of the message that b begins with; size counts the head too. A size of 0: b does not hold the whole
// head yet.
func Next(b []byte) (kind byte, size int) {
	if len(b) < Head {
		return 0, 0
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > maxMessage {
		return b[0], -1
	}
	return b[0], int(n) + 1
}

// FromClient judges a head that a client sent.
func FromClient(kind byte, size int) error {
	least, most := 0, maxMessage
	switch kind {
	case 'Q', 'd', 'f', 'F', 'B', 'P', 'p':
	case 'D', 'C', 'E':
		least, most = 1, maxShort
	case 'S', 'H', 'c', 'X':
		most = 0
	default:
		return fmt.Errorf("%w: type %q from a client", ErrMessage, kind)
	}
	return judge(kind, size, least, most)
}

// FromServer judges a head that a server sent after the login.
func FromServer(kind byte, size int) error {
	least, most := 0, maxMessage
	switch kind {
	case 'D', 'd', 'T', 't', 'E', 'N', 'A', 'V':
	case 'C', 'S', 'G', 'H', 'v':
		least, most = 1, maxShort
	case 'Z':
		least, most = 1, 1
	case '1', '2', '3', 'n', 's', 'I', 'c':
		most = 0
	default:
		return fmt.Errorf("%w: type %q from a server", ErrMessage, kind)
	}
	return judge(kind, size, least, most)
}

func judge(kind byte, size, least, most int) error {
	if body := size - Head; size < Head || body < least || body > most {
		return fmt.Errorf("%w: length of type %q", ErrMessage, kind)
	}
	return nil
}

// Text is the string that b begins with, and what follows it; false: its end is not in b.
func Text(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// Append appends a message whose body consists of the parts.
func Append(dst []byte, kind byte, parts ...string) []byte {
	at := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	for _, p := range parts {
		dst = append(dst, p...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

// AppendRenamed appends the head of a message of that size, in which a name is put in the place of one of another length,
// and what stands before the name. The caller appends the rest.
func AppendRenamed(dst []byte, kind byte, size int, before []byte, old int, name string) []byte {
	dst = append(dst, kind, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(dst[len(dst)-4:], uint32(size-1-old+len(name)))
	dst = append(dst, before...)
	return append(dst, name...)
}
