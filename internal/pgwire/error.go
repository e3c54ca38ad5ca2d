package pgwire

import "fmt"

// Error is the content of an ErrorResponse or a NoticeResponse: one that a server sent (it comes out of Login and
// QuerySecret, wrapped), or one to send (AppendErrorResponse, AcceptOptions.Admit).
type Error struct {
	Severity string // FATAL, ERROR, …; sent as both S and V. Empty: FATAL
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	// Other are the remaining fields that the server sent, in its order (position, where, file, line, …).
	Other []Field
}

// Field is a field of an ErrorResponse or NoticeResponse that Error has no name for.
type Field struct {
	Code  byte
	Value string
}

// Error is the text as psql prints it, with the SQLSTATE.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.severity(), e.Message, e.Code)
}

func (e *Error) severity() string {
	if e.Severity == "" {
		return "FATAL"
	}
	return e.Severity
}

// fields appends the fields and their end.
func (e *Error) fields(b []byte) []byte {
	put := func(code byte, value string) {
		if value != "" {
			b = text(append(b, code), value)
		}
	}
	put('S', e.severity())
	put('V', e.severity())
	put('C', e.Code)
	put('M', e.Message)
	put('D', e.Detail)
	put('H', e.Hint)
	for _, f := range e.Other {
		put(f.Code, f.Value)
	}
	return append(b, 0)
}

// ParseError reads the body of an ErrorResponse or NoticeResponse (what follows the length).
func ParseError(body []byte) (*Error, error) {
	var e Error
	r := reader{b: body}
	for {
		code := r.byte()
		if code == 0 {
			break
		}
		e.set(code, r.string())
	}
	if r.failed {
		return nil, fmt.Errorf("error response: %w", errTooShort)
	}
	return &e, nil
}

// set takes one field. V is the severity that is never translated; servers before 9.6 send only S.
func (e *Error) set(code byte, value string) {
	switch code {
	case 'V':
		e.Severity = value
	case 'S':
		if e.Severity == "" {
			e.Severity = value
		}
	case 'C':
		e.Code = value
	case 'M':
		e.Message = value
	case 'D':
		e.Detail = value
	case 'H':
		e.Hint = value
	default:
		e.Other = append(e.Other, Field{code, value})
	}
}

// Refused is why Accept let a client not in, and what it was told.
type Refused struct {
	Told   *Error
	Reason error // for the log; may say more than the client is to know
}

func (r *Refused) Error() string { return r.Reason.Error() }

// Unwrap gives the reason.
func (r *Refused) Unwrap() error { return r.Reason }
