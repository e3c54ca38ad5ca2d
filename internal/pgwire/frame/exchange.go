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
	commands int // entries of the ring that may do anything: Query, FunctionCall, Execute
	ending   int // those that are answered by a ReadyForQuery
	batch    bool
	skipping bool
	copying  bool
	executed bool
	flushed  int // entries, the first ones, that were entered before a Flush
	// concluded: the Query or FunctionCall whose reply is next has had what comes before its ReadyForQuery.
	concluded bool
	// ignored are the Syncs among the data of the COPY under way. strays are those of one that has failed: whether it had read them,
	// so that they get no reply, is not known.
	ignored, strays int
}

// Edge tells whether nothing is owed or begun, no transaction is open, and the server would not ignore what it gets next.
func (x *Exchange[T]) Edge() bool {
	return x.n == 0 && !x.batch && !x.skipping && !x.copying && x.Status == 'I'
}

// Owed is how many replies are owed.
func (x *Exchange[T]) Owed() int { return x.n }

// Owes tells whether a reply is owed.
func (x *Exchange[T]) Owes() bool { return x.n > 0 }

// Asked is the type of the message whose reply is next; 0: nothing is owed.
func (x *Exchange[T]) Asked() byte {
	if x.n == 0 {
		return 0
	}
	return x.at(0).Kind
}

// Ends tells whether a ReadyForQuery is owed.
func (x *Exchange[T]) Ends() bool { return x.ending > 0 }

// Unreported tells whether a command may have changed settings of which the server has said nothing yet: it does so with ReadyForQuery.
func (x *Exchange[T]) Unreported() bool { return x.commands > 0 || x.executed }

// count notes that an entry has come into the ring, or has left it.
func (x *Exchange[T]) count(kind byte, by int) {
	switch kind {
	case 'Q', 'F':
		x.commands += by
		x.ending += by
	case 'E':
		x.commands += by
	case 'S':
		x.ending += by
	}
}

// Flush enters a Flush.
func (x *Exchange[T]) Flush() { x.flushed = x.n }

// Stalled tells whether what is owed will not come before the client sends a Sync or a Flush: the server keeps it.
func (x *Exchange[T]) Stalled() bool { return x.n > 0 && x.batch && x.ending == 0 && x.flushed == 0 }

// Begun tells whether messages were sent which a Sync is still to follow.
func (x *Exchange[T]) Begun() bool { return x.batch }

// Skipping tells whether the server ignores what it gets until the next Sync.
func (x *Exchange[T]) Skipping() bool { return x.skipping }

// Copying tells whether the server waits for COPY data.
func (x *Exchange[T]) Copying() bool { return x.copying }

// Strays tells whether more may come than is owed: ReadyForQuery for Syncs among the data of a COPY that has failed. It does, if it
// comes at all, before the replies to whatever was sent later.
func (x *Exchange[T]) Strays() bool { return x.strays > 0 }

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
	if x.n > 0 || x.batch || x.skipping || x.Status != 'I' {
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
	x.count(e.Kind, 1)
	x.copying = false // what is not data is not read as such
}

// keptRing is how many entries an exchange that owes nothing has room for.
const keptRing = 1024

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
	x.count(x.at(0).Kind, -1)
	*x.at(0) = Entry[T]{}
	x.first = (x.first + 1) & (len(x.ring) - 1)
	if x.n--; x.n == 0 && len(x.ring) > keptRing {
		x.ring, x.first = nil, 0
	}
	x.flushed = max(0, x.flushed-1)
}

// Query enters a Query or a FunctionCall.
func (x *Exchange[T]) Query(kind byte) {
	if x.skipping {
		return
	}
	x.batch = false
	x.push(Entry[T]{Kind: kind})
}

// Extended enters Parse, Bind, Describe, Execute or Close. After an error the server ignores it.
func (x *Exchange[T]) Extended(e Entry[T]) {
	x.batch = true
	if !x.skipping {
		x.push(e)
	}
}

// Sync enters a Sync. One within COPY data is ignored by the server, unless COPY fails before it.
func (x *Exchange[T]) Sync() {
	if x.copying {
		x.ignored++
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
	asked := x.Asked()
	switch {
	case kind == 'Z' && (asked == 'S' || x.concluded):
		return x.ready(status)
	case kind == 'Z' && x.strays > 0:
		return Entry[T]{}, x.stray(status)
	case x.n == 0:
		return Entry[T]{}, fmt.Errorf("%w: type %q, which nobody has asked for", ErrMessage, kind)
	}
	switch kind {
	case 'E':
		return x.failed(asked), nil
	case 'G':
		if asked == 'Q' || asked == 'E' {
			x.copyIn(asked)
			return Entry[T]{}, nil
		}
	default:
		if ends(asked, kind) {
			x.went(kind)
			x.executed = x.executed || asked == 'E'
			return x.pop(), nil
		}
		if within(asked, kind) {
			x.went(kind)
			x.concluded = x.concluded || kind == 'C' || kind == 'I' || kind == 'V'
			return Entry[T]{}, nil
		}
	}
	return Entry[T]{}, fmt.Errorf("%w: type %q in answer to type %q", ErrMessage, kind, asked)
}

// went notes what a reply other than an error proves: all before what it answers was dealt with, and so was, at the end of COPY, its
// data.
func (x *Exchange[T]) went(kind byte) {
	x.strays = 0
	if kind == 'C' {
		x.ignored = 0
	}
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
	if err := x.enter(status); err != nil {
		return Entry[T]{}, err
	}
	return x.pop(), nil
}

// stray takes the ReadyForQuery of a Sync that the failed COPY had not read.
func (x *Exchange[T]) stray(status byte) error {
	x.strays--
	x.skipping = false
	return x.enter(status)
}

func (x *Exchange[T]) enter(status byte) error {
	if status != 'I' && status != 'T' && status != 'E' {
		return fmt.Errorf("%w: status %q", ErrMessage, status)
	}
	x.Status, x.executed, x.copying, x.concluded = status, false, false, false
	return nil
}

// failed ends what an ErrorResponse ends: a simple query goes on to its ReadyForQuery, of an extended batch all is ignored
// up to the next Sync. An error of a Sync itself is one of the commit.
func (x *Exchange[T]) failed(asked byte) (failed Entry[T]) {
	x.copying = false
	x.strays, x.ignored = x.strays+x.ignored, 0
	switch asked {
	case 'Q', 'F', 'S':
		x.concluded = true
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

// copyIn begins COPY data from the client. What it has sent already ends it if there is anything but data and Syncs. The Syncs before
// that are among the data, where the server ignores them.
func (x *Exchange[T]) copyIn(asked byte) {
	syncs := 0
	for 1+syncs < x.n && x.at(1+syncs).Kind == 'S' {
		syncs++
	}
	end := 1 + syncs
	x.copying = end == x.n
	if !x.copying && x.at(end).Kind == 'c' {
		end++
	}
	x.ignored += syncs
	x.leaveOut(end)
	// A Sync that was ignored did not end the batch.
	x.batch = x.batch || asked == 'E' && !x.Ends()
}

// leaveOut takes out what stands between the first entry and that place.
func (x *Exchange[T]) leaveOut(end int) {
	*x.at(0), *x.at(end - 1) = *x.at(end - 1), *x.at(0)
	for range end - 1 {
		x.shift()
	}
}
