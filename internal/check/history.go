package check

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Format is the version of the history format that this package understands. It grows when an older program would
// misread a newer file.
const Format = 1

// Kind is what an operation does.
type Kind string

// The kinds of operation. Every value that is written is the ID of the operation that writes it, so that whoever reads
// it knows where it came from.
const (
	Ledger        Kind = "ledger"         // inserts a row
	RegisterWrite Kind = "register-write" // overwrites one of a few rows
	RegisterRead  Kind = "register-read"  // reads it under a row lock, which makes the server confirm the read as a commit
	RegisterCAS   Kind = "register-cas"   // overwrites it if it holds Input.Expect; reads it in any case
	ListAppend    Kind = "list-append"    // appends to an array and reads it
	ListRead      Kind = "list-read"      // reads an array under a row lock
	Transfer      Kind = "transfer"       // moves Input.Amount between two accounts
	Sum           Kind = "sum"            // adds all accounts up, by a plain read
	SessionWrite  Kind = "session-write"  // overwrites a row that belongs to one client
	SessionRead   Kind = "session-read"   // reads it, by a plain read
)

// Writes tells whether an acknowledgement of the kind is a commit that the cluster must keep.
func (k Kind) Writes() bool {
	switch k {
	case Ledger, RegisterWrite, RegisterCAS, ListAppend, Transfer, SessionWrite:
		return true
	}
	return false
}

// Outcome is what a client knows about its operation.
type Outcome string

// Failed is only what provably did not happen and never will; whatever lacks that proof is Unknown.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
)

// Header is the first line of a history.
type Header struct {
	Format int       `json:"format"`
	Begun  time.Time `json:"begun"` // wall clock, for display; all else counts from here on a monotonic clock
	Note   string    `json:"note,omitempty"`
	Routes []string  `json:"routes,omitempty"` // names only: connection strings hold passwords
	Seed   uint64    `json:"seed,omitempty"`
	// Pause is how long a client waits between two operations, Timeout how long for an answer.
	Pause   time.Duration `json:"pause,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	// SynchronousCommit is what the clients asked for; empty means the server's default.
	SynchronousCommit string `json:"synchronous_commit,omitempty"`
	// Accounts were opened with Balance each; transfers keep the sum.
	Accounts int   `json:"accounts,omitempty"`
	Balance  int64 `json:"balance,omitempty"`
}

// Input is what an operation asked for beside its kind and key.
type Input struct {
	Expect int64 `json:"expect,omitempty"`
	From   int   `json:"from,omitempty"`
	To     int   `json:"to,omitempty"`
	Amount int64 `json:"amount,omitempty"`
}

// Output is what an operation read.
type Output struct {
	Value int64   `json:"value,omitempty"`
	List  []int64 `json:"list,omitempty"`
}

// Operation is one request of one client and what came of it.
type Operation struct {
	ID int64 `json:"id"`
	// Client counts the clients; Session the connections of one client.
	Client  int     `json:"client"`
	Session int     `json:"session,omitempty"`
	Kind    Kind    `json:"kind"`
	Key     string  `json:"key,omitempty"`
	Input   *Input  `json:"input,omitempty"`
	Output  *Output `json:"output,omitempty"`
	// InTransaction means between BEGIN and COMMIT; otherwise the statement commits by itself.
	InTransaction bool   `json:"in_transaction,omitempty"`
	Route         string `json:"route"`
	// Start is before anything was sent (connecting included), End after the whole answer had come.
	Start    time.Duration `json:"start"`
	End      time.Duration `json:"end"`
	Outcome  Outcome       `json:"outcome"`
	SQLSTATE string        `json:"sqlstate,omitempty"`
	Error    string        `json:"error,omitempty"`
	// Member that answered, by name, or by address and port where its name is not known; Standby if it was in recovery.
	Member  string `json:"member,omitempty"`
	Standby bool   `json:"standby,omitempty"`
	// Timeline is the one the server inserted WAL on when the statement ran; zero means not known.
	Timeline cluster.Timeline `json:"timeline,omitempty"`
	// Term is the leadership that answered, where the recorder knows it; otherwise it is found by the timeline.
	Term uint64 `json:"term,omitempty"`
}

// Fault is something that was done to the cluster.
type Fault struct {
	Name   string        `json:"name"`
	Target string        `json:"target,omitempty"`
	Begin  time.Duration `json:"begin"`
	End    time.Duration `json:"end,omitempty"` // when it was undone; zero if never
}

// Term is a leadership, as the store tells it.
type Term struct {
	Number   uint64           `json:"number"`
	Holder   string           `json:"holder"`
	Timeline cluster.Timeline `json:"timeline"`
	From     time.Duration    `json:"from,omitempty"`
}

// Moved is a transfer that stands in the database.
type Moved struct {
	ID     int64 `json:"id"`
	From   int   `json:"from"`
	To     int   `json:"to"`
	Amount int64 `json:"amount"`
}

// Final is a part of what stood in the database after all had healed. The parts of a history are added up; the last one
// is Complete.
type Final struct {
	Ledger    []int64            `json:"ledger,omitempty"`
	Registers map[string]int64   `json:"registers,omitempty"`
	Lists     map[string][]int64 `json:"lists,omitempty"`
	Sessions  map[string]int64   `json:"sessions,omitempty"`
	Balances  map[int]int64      `json:"balances,omitempty"`
	Transfers []Moved            `json:"transfers,omitempty"`
	Complete  bool               `json:"complete,omitempty"`
}

// Stopped says that the load was ended on purpose, and when.
type Stopped struct {
	At time.Duration `json:"at"`
}

// Line is one line of a history: exactly one of its fields is set.
type Line struct {
	Header  *Header    `json:"header,omitempty"`
	Op      *Operation `json:"op,omitempty"`
	Fault   *Fault     `json:"fault,omitempty"`
	Term    *Term      `json:"term,omitempty"`
	Stopped *Stopped   `json:"stopped,omitempty"`
	Final   *Final     `json:"final,omitempty"`
}

// History is everything that was recorded.
type History struct {
	Header     Header
	Operations []Operation
	Faults     []Fault
	Terms      []Term
	// Stopped is when the load ended; zero if the recorder did not come to say so.
	Stopped time.Duration
	// Final is nil as long as nothing was read back.
	Final *Final
}

// Add takes in one line.
func (h *History) Add(l Line) {
	switch {
	case l.Header != nil:
		h.Header = *l.Header
	case l.Op != nil:
		h.Operations = append(h.Operations, *l.Op)
	case l.Fault != nil:
		h.Faults = append(h.Faults, *l.Fault)
	case l.Term != nil:
		h.Terms = append(h.Terms, *l.Term)
	case l.Stopped != nil:
		h.Stopped = l.Stopped.At
	case l.Final != nil:
		h.addFinal(*l.Final)
	}
}

func (h *History) addFinal(part Final) {
	if h.Final == nil {
		h.Final = &Final{Registers: map[string]int64{}, Lists: map[string][]int64{}, Sessions: map[string]int64{}, Balances: map[int]int64{}}
	}
	f := h.Final
	f.Ledger = append(f.Ledger, part.Ledger...)
	f.Transfers = append(f.Transfers, part.Transfers...)
	for k, v := range part.Registers {
		f.Registers[k] = v
	}
	for k, v := range part.Lists {
		f.Lists[k] = v
	}
	for k, v := range part.Sessions {
		f.Sessions[k] = v
	}
	for k, v := range part.Balances {
		f.Balances[k] = v
	}
	f.Complete = f.Complete || part.Complete
}

// end is when the last thing in the history happened.
func (h *History) end() time.Duration {
	end := h.Stopped
	for _, o := range h.Operations {
		end = max(end, o.End)
	}
	return end
}

// whole tells whether the database was read back to the end.
func (h *History) whole() bool { return h.Final != nil && h.Final.Complete }
