package agent

import (
	"maps"
	"sync"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// Figures are counts of what the agent has done since it was started.
type Figures struct {
	Decisions uint64
	// Renewals are proofs of leadership: how many succeeded and failed, and how long they took, in all and the last one.
	Renewed, NotRenewed uint64
	RenewalTime         time.Duration
	LastRenewal         time.Duration
	Actions             map[string]ActionFigures // by kind
	Clones              uint64                   // copies of another member that were finished
	JournalDropped      int64                    // entries that could not be recorded
}

// ActionFigures are those of one kind of action.
type ActionFigures struct {
	Done, Failed uint64
	Time         time.Duration
}

// figures are counted by the loop and by the keeper.
type figures struct {
	mu sync.Mutex
	f  Figures
}

func (f *figures) decided() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f.Decisions++
}

func (f *figures) renewal(took time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.f.NotRenewed++
	} else {
		f.f.Renewed++
	}
	f.f.RenewalTime += took
	f.f.LastRenewal = took
}

func (f *figures) acted(k ha.Kind, took time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f.Actions == nil {
		f.f.Actions = map[string]ActionFigures{}
	}
	one := f.f.Actions[string(k)]
	if err != nil {
		one.Failed++
	} else {
		one.Done++
		if k == ha.Clone {
			f.f.Clones++
		}
	}
	one.Time += took
	f.f.Actions[string(k)] = one
}

// copy is a copy that nobody changes afterwards.
func (f *figures) copy() Figures {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.f
	c.Actions = maps.Clone(c.Actions)
	return c
}
