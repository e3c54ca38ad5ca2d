package pooled

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// ask runs one query on a connection that nobody else reads, and returns the first column of its first row.
func ask(conn io.ReadWriter, sql string) (got string, err error) {
	if _, err := conn.Write(frame.Append(nil, 'Q', sql, "\x00")); err != nil {
		return "", err
	}
	var failed error
	rows := 0
	for {
		var head [frame.Head]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "", err
		}
		kind, size := frame.Next(head[:])
		if err := frame.FromServer(kind, size); err != nil {
			return "", err
		}
		if size > largeBuffer {
			return "", errors.New("the answer is too long")
		}
		body := make([]byte, size-frame.Head)
		if _, err := io.ReadFull(conn, body); err != nil {
			return "", err
		}
		switch kind {
		case 'D':
			if rows++; rows == 1 {
				got = column(body)
			}
		case 'E':
			e, err := pgwire.ParseError(body)
			if err != nil {
				return "", err
			}
			failed = e
		case 'Z':
			if failed == nil && rows == 0 {
				failed = fmt.Errorf("no row")
			}
			return got, failed
		}
	}
}

// column is the first column of a DataRow; empty for null.
func column(body []byte) string {
	if len(body) < 6 {
		return ""
	}
	n := int(int32(binary.BigEndian.Uint32(body[2:])))
	if n < 0 || 6+n > len(body) {
		return ""
	}
	return string(body[6 : 6+n])
}
