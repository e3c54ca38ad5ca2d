package frame

import "fmt"

// Entry is one message to the server that it owes a reply to.
type Entry[T any] struct {
	// Kind is the message's type: Q, F, P, B, D, E, C, S; c stands for the end of COPY data, which has no reply.
	Kind byte
	// Swallow keeps the reply from the client, since it did not ask for it.
	Swallow bool
	// As, if not 0, is the type under which the client gets the reply.
	As byte
	// Note is for the owner of the exchange.
	Note T
}

// Exchange is what one session owes at the moment. The zero value is that of a session which waits for its first command;
// Status has to be set. It is not safe for use by several goroutines.
type Exchange[T any] struct {
	// Status is that of the last ReadyForQuery: I, T or E.
	Status byte
	// Drop, if not nil, is told of entries that will get no reply, because of an error before them, the last one first: so what they
	// were to do can be undone step by step.
	Drop func(Entry[T])

	ring     []Entry[T]
	first, n int
	batch    bool
	skipping bool
	copying  bool
	executed bool
}

// Edge tells whether nothing is owed or begun, no transaction is open, and the server would not ignore what it gets next.
func (x *Exchange[T]) Edge() bool {
	return x.n == 0 && !x.batch && !x.skipping && !x.copying && x.Status == 'I'
}

// Owes tells whether a reply is owed.
func (x *Exchange[T]) Owes() bool { return x.n > 0 }

// Asked is the type of the message whose reply is next; 0: nothing is owed.
func (x *Exchange[T]) Asked() byte {
	if x.n == 0 {
		return 0
	}
	return x.at(0).Kind
}

// Begun tells whether messages were sent which a Sync is still to follow.
func (x *Exchange[T]) Begun() bool { return x.batch }

// Skipping tells whether the server ignores what it gets until the next Sync.
func (x *Exchange[T]) Skipping() bool { return x.skipping }

// Copying tells whether the server waits for COPY data.
func (x *Exchange[T]) Copying() bool { return x.copying }

// Fate is what may have become of the transaction when the session breaks off.
type Fate int

// The fates. Unknown: a commit may have been on its way.
const (
	Nothing Fate = iota // there was none
	Lost                // it was open, and cannot have been committed
	Unknown
)

// Fate judges by what is owed, and was executed since the last ReadyForQuery. COMMIT, and CALL of what commits, are executed
// like any other statement, in the middle of a batch too, and have taken effect before there is a Sync.
func (x *Exchange[T]) Fate() Fate {
	if x.executed {
		return Unknown
	}
	for i := range x.n {
		switch x.at(i).Kind {
		case 'Q', 'F', 'E':
			return Unknown
		}
	}
	if x.n > 0 || x.batch || x.Status != 'I' {
		return Lost
	}
	return Nothing
}

func (x *Exchange[T]) at(i int) *Entry[T] { return &x.ring[(x.first+i)&(len(x.ring)-1)] }

func (x *Exchange[T]) push(e Entry[T]) {
	if x.n == len(x.ring) {
		x.grow()
	}
	x.n++
	*x.at(x.n - 1) = e
}

func (x *Exchange[T]) grow() {
	bigger := make([]Entry[T], max(8, 2*len(x.ring)))
	for i := range x.n {
		bigger[i] = *x.at(i)
	}
	x.ring, x.first = bigger, 0
}

func (x *Exchange[T]) pop() Entry[T] {
	e := *x.at(0)
	x.shift()
	for x.n > 0 && x.at(0).Kind == 'c' { // has no reply
		x.shift()
	}
	return e
}

func (x *Exchange[T]) shift() {
	*x.at(0) = Entry[T]{}
	x.first = (x.first + 1) & (len(x.ring) - 1)
	x.n--
}

// Query enters a Query or a FunctionCall.
func (x *Exchange[T]) Query(kind byte) {
	if x.skipping {
		return
	}
	x.batch = false
	x.push(Entry[T]{Kind: kind})
}

// Extended enters Parse, Bind, Describe, Execute or Close. False: the server ignores it, because of an error before.
func (x *Exchange[T]) Extended(e Entry[T]) bool {
	x.batch = true
	if x.skipping {
		return false
	}
	x.push(e)
	return true
}

// Sync enters a Sync. One within COPY data is ignored by the server.
func (x *Exchange[T]) Sync() {
	if x.copying {
		return
	}
	x.batch, x.skipping = false, false
	x.push(Entry[T]{Kind: 'S'})
}

// CopyEnd enters CopyDone or CopyFail. Outside of COPY the server ignores it.
func (x *Exchange[T]) CopyEnd() {
	if x.copying {
		x.copying = false
		return
	}
	if x.n > 0 {
		x.push(Entry[T]{Kind: 'c'})
	}
}

// Receive enters a message of the server; status is the first byte of its body. It returns the entry that the message
// answers: with Kind 0 if it answers none, or does not end the reply.
func (x *Exchange[T]) Receive(kind, status byte) (Entry[T], error) {
	switch kind {
	case 'N', 'S', 'A':
		return Entry[T]{}, nil
	}
	if x.n == 0 {
		return Entry[T]{}, fmt.Errorf("%w: type %q, which nobody has asked for", ErrMessage, kind)
	}
	asked := x.at(0).Kind
	switch kind {
	case 'Z':
		if asked == 'S' || asked == 'Q' || asked == 'F' {
			return x.ready(status)
		}
	case 'E':
		return x.failed(asked), nil
	case 'G':
		if asked == 'Q' || asked == 'E' {
			x.copyIn(asked)
			return Entry[T]{}, nil
		}
	default:
		if ends(asked, kind) {
			if asked == 'E' {
				x.executed = true
			}
			return x.pop(), nil
		}
		if within(asked, kind) {
			return Entry[T]{}, nil
		}
	}
	return Entry[T]{}, fmt.Errorf("%w: type %q in answer to type %q", ErrMessage, kind, asked)
}

// ends tells whether a message ends the reply to another.
func ends(asked, kind byte) bool {
	switch asked {
	case 'P':
		return kind == '1'
	case 'B':
		return kind == '2'
	case 'C':
		return kind == '3'
	case 'D':
		return kind == 'T' || kind == 'n'
	case 'E':
		return kind == 'C' || kind == 'I' || kind == 's'
	}
	return false
}

// within tells whether a message may be a part of the reply to another.
func within(asked, kind byte) bool {
	switch kind {
	case 'D', 'H', 'd', 'c', 'T':
		return asked == 'Q' || asked == 'E' && kind != 'T'
	case 'C', 'I':
		return asked == 'Q'
	case 't':
		return asked == 'D'
	case 'V':
		return asked == 'F'
	}
	return false
}

func (x *Exchange[T]) ready(status byte) (Entry[T], error) {
	if status != 'I' && status != 'T' && status != 'E' {
		return Entry[T]{}, fmt.Errorf("%w: status %q", ErrMessage, status)
	}
	x.Status, x.executed, x.copying = status, false, false
	return x.pop(), nil
}

// failed ends what an ErrorResponse ends: a simple query goes on to its ReadyForQuery, of an extended batch all is ignored
// up to the next Sync. An error of a Sync itself is one of the commit.
func (x *Exchange[T]) failed(asked byte) (failed Entry[T]) {
	x.copying = false
	switch asked {
	case 'Q', 'F', 'S':
		return Entry[T]{}
	}
	failed = *x.at(0)
	skipped := 1
	for skipped < x.n && x.at(skipped).Kind != 'S' {
		skipped++
	}
	x.drop(skipped)
	x.skipping = x.n == 0
	return failed
}

// Abandon drops all that is owed: the server has ended, and read nothing of it.
func (x *Exchange[T]) Abandon() { x.drop(x.n) }

// drop takes back the first n entries, the last of them first.
func (x *Exchange[T]) drop(n int) {
	for i := n - 1; i >= 0; i-- {
		if e := *x.at(i); x.Drop != nil && e.Kind != 'c' { // which has no reply anyway
			x.Drop(e)
		}
	}
	for range n {
		x.shift()
	}
}

// copyIn begins COPY data from the client. What it has sent already ends it if there is an end; the Syncs before that
// are among the data, where the server ignores them.
func (x *Exchange[T]) copyIn(asked byte) {
	kept, ended, syncs := x.n, false, 0
	for i := 1; i < x.n && !ended; i++ {
		switch e := x.at(i); e.Kind {
		case 'c':
			ended = true
			e.Kind = 0
		case 'S':
			e.Kind = 0
		}
	}
	x.copying = !ended
	// Close the gaps.
	to := 0
	for i := range kept {
		if e := *x.at(i); e.Kind != 0 {
			*x.at(to) = e
			to++
			if e.Kind == 'S' {
				syncs++
			}
		}
	}
	// A Sync that was ignored did not end the batch.
	x.batch = x.batch || asked == 'E' && syncs == 0
	for i := to; i < kept; i++ {
		*x.at(i) = Entry[T]{}
	}
	x.n = to
}
