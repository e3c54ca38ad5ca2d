package check

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is one copy of everything, used by clients whose requests take a random time, are refused or lose their answer.
type world struct {
	rng       *rand.Rand
	history   History
	registers map[string]int64
	lists     map[string][]int64
	final     Final
}

// simulate makes a correct history: every operation takes effect at one instant between its start and its end.
func simulate(seed uint64, operations, clients int) *History {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), registers: map[string]int64{"r0": 0, "r1": 0}, lists: map[string][]int64{}}
	w.history.Header = Header{Format: Format, Seed: seed, Accounts: 2, Balance: 100}
	w.final.Balances = map[int]int64{0: 100, 1: 100}
	type step struct {
		o    Operation
		when time.Duration // of the effect
	}
	var steps []step
	free := make([]time.Duration, clients)
	for range operations {
		c := w.rng.IntN(clients)
		start := free[c] + time.Duration(w.rng.IntN(5000))
		end := start + 1 + time.Duration(w.rng.IntN(8000))
		free[c] = end + 1
		when := start + time.Duration(w.rng.Int64N(int64(end-start)+1))
		o := Operation{Client: c, Kind: w.kind(), Key: fmt.Sprintf("r%d", w.rng.IntN(2)), Route: "proxy", Start: start, End: end, Outcome: OK, Timeline: 1}
		if w.rng.IntN(20) == 0 { // the answer is lost, and the effect comes when it likes, or never
			o.Outcome = Unknown
			when += time.Duration(w.rng.IntN(50_000))
		}
		steps = append(steps, step{o, when})
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.when, b.when) })
	for i, s := range steps {
		s.o.ID = int64(i + 1)
		w.history.Operations = append(w.history.Operations, w.take(s.o))
	}
	w.final.Registers, w.final.Lists, w.final.Complete = w.registers, w.lists, true
	w.history.Stopped = slices.Max(free)
	w.history.Add(Line{Final: &w.final})
	return &w.history
}

func (w *world) kind() Kind {
	kinds := []Kind{Ledger, RegisterWrite, RegisterRead, RegisterCAS, ListAppend, ListRead, Transfer, Sum}
	return kinds[w.rng.IntN(len(kinds))]
}

// take lets an operation have its effect, and gives it its answer.
func (w *world) take(o Operation) Operation {
	if o.Outcome == OK && w.rng.IntN(20) == 0 {
		o.Outcome = Failed
		return o
	}
	if o.Outcome == Unknown && w.rng.IntN(2) == 0 {
		return o
	}
	switch o.Kind {
	case Ledger:
		w.final.Ledger = append(w.final.Ledger, o.ID)
	case RegisterWrite:
		w.registers[o.Key] = o.ID
	case RegisterRead:
		o.Output = &Output{Value: w.registers[o.Key]}
	case RegisterCAS:
		o.Output = &Output{Value: w.registers[o.Key]}
		o.Input = &Input{Expect: o.Output.Value}
		if w.rng.IntN(3) == 0 {
			o.Input.Expect = -1
		} else {
			w.registers[o.Key] = o.ID
		}
	case ListAppend:
		w.lists[o.Key] = append(slices.Clip(w.lists[o.Key]), o.ID)
		o.Output = &Output{List: w.lists[o.Key]}
	case ListRead:
		o.Output = &Output{List: w.lists[o.Key]}
	case Transfer:
		m := Moved{ID: o.ID, From: 0, To: 1, Amount: 5}
		o.Input = &Input{From: 0, To: 1, Amount: 5}
		w.final.Transfers = append(w.final.Transfers, m)
		w.final.Balances[0] -= 5
		w.final.Balances[1] += 5
	case Sum:
		o.Output = &Output{Value: 200}
	}
	if o.Outcome == Unknown {
		o.Output = nil
	}
	return o
}

// TestCorrectHistoriesPass: whatever a single copy can answer is never called a violation.
func TestCorrectHistoriesPass(t *testing.T) {
	for seed := range uint64(100) {
		h := simulate(seed, 600, 6)
		if r := Judge(h); r.Verdict != Pass {
			t.Fatalf("seed %d:\n%s", seed, r.Text())
		}
	}
}

// TestSpoiledHistoriesFail: a correct history with one register or list answer changed is never passed.
func TestSpoiledHistoriesFail(t *testing.T) {
	for seed := range uint64(100) {
		h := simulate(seed, 600, 6)
		spoiled := spoil(rand.New(rand.NewPCG(seed, 2)), h)
		if r := Judge(h); r.Verdict == Pass {
			t.Fatalf("seed %d: operation %d was spoiled, and it passes", seed, spoiled)
		}
	}
}

// spoil sets one answer back by at least the time in which an operation can be open.
func spoil(rng *rand.Rand, h *History) int64 {
	for {
		o := &h.Operations[rng.IntN(len(h.Operations))]
		switch {
		case o.Outcome != OK || o.Start < 200_000:
		case o.Kind == RegisterRead:
			o.Output = &Output{Value: 0} // both registers were written long before
			return o.ID
		case o.Kind == ListRead && len(o.Output.List) > 4:
			list := slices.Clone(o.Output.List)
			slices.Reverse(list)
			o.Output = &Output{List: list}
			return o.ID
		}
	}
}

// TestLongHistoriesAreJudgedInTime: an hour of the default load has no more operations on one key than this.
func TestLongHistoriesAreJudgedInTime(t *testing.T) {
	s := &story{History: History{Header: Header{Format: Format}}}
	var value int64
	for n := range 100_000 {
		if n%3 == 0 {
			value = s.op(RegisterWrite, key("r0"))
		} else {
			s.op(RegisterRead, key("r0"), reads(value))
		}
	}
	if r := Judge(&s.History); r.Verdict != Pass {
		t.Errorf("judged:\n%s", r.Text())
	}
}

func BenchmarkJudge(b *testing.B) {
	h := simulate(1, 20_000, 6)
	for b.Loop() {
		Judge(h)
	}
}
