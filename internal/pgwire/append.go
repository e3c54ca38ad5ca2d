package pgwire

import "encoding/binary"

// Status of a session in ReadyForQuery.
const (
	Idle          byte = 'I'
	InTransaction byte = 'T'
	InFailed      byte = 'E'
)

// AppendParameterStatus appends a ParameterStatus message.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	return finish(dst, func(b []byte) []byte { return text(text(b, name), value) }, 'S')
}

// AppendBackendKeyData appends a BackendKeyData message. Its secret has to have 4 bytes for a client of protocol 3.0.
func AppendBackendKeyData(dst []byte, key CancelKey) []byte {
	return finish(dst, func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(b, key.PID), key.Secret...) }, 'K')
}

// AppendReadyForQuery appends a ReadyForQuery message with that status of the session (Idle, InTransaction, InFailed).
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, 'Z', 0, 0, 0, 5, status)
}

// AppendErrorResponse appends an ErrorResponse message with every field of the error that is not empty.
func AppendErrorResponse(dst []byte, e *Error) []byte { return finish(dst, e.fields, 'E') }

// AppendNotice appends a NoticeResponse message with every field of the notice that is not empty.
func AppendNotice(dst []byte, e *Error) []byte { return finish(dst, e.fields, 'N') }

// finish appends a message of that type with the body that the function appends.
func finish(dst []byte, body func([]byte) []byte, kind byte) []byte {
	dst = append(dst, kind, 0, 0, 0, 0)
	at := len(dst) - 4
	dst = body(dst)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// text appends a string with its end. A string cannot hold a zero byte on the wire: it ends there.
func text(dst []byte, s string) []byte {
	for i := range len(s) {
		if s[i] == 0 {
			s = s[:i]
			break
		}
	}
	return append(append(dst, s...), 0)
}
