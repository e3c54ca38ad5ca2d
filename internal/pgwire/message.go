package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	errTooLong  = errors.New("the message is too long")
	errTooShort = errors.New("the message ends too early")
)

// readMessage reads one message with a type, and not a byte more. Its body has at most limit bytes.
func readMessage(r io.Reader, limit int) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 {
		return 0, nil, errTooShort
	}
	if n-4 > uint32(limit) {
		return 0, nil, fmt.Errorf("%w: %d bytes in a message of type %q", errTooLong, n-4, head[0])
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, cut(err)
}

// cut says that a connection which ended within an exchange did not end as it should.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// reader takes the fields of a message's body one after the other. After the first that is not there it is failed, and
// gives zero values.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.failed, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string takes a text up to its zero byte.
func (r *reader) string() string {
	i := bytes.IndexByte(r.b, 0)
	b := r.take(i) // -1: failed
	r.take(1)
	return string(b)
}
