package check

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// chunk is how many operations on a key are put in order together where the history allows a cut.
const chunk = 128

// object is what a kind of register does, one operation at a time.
type object[S any] struct {
	// step is the state after o, and whether o fits the state before.
	step func(before S, o Operation) (after S, fits bool)
	// after is the state that o leaves, whatever was before; known is false if o does not tell.
	after func(o Operation) (state S, known bool)
	equal func(a, b S) bool
	// saw tells whether o shows the effect of the operation id.
	saw func(o Operation, id int64) bool
}

// byKey are the operations of the given kinds on each key, in order of their start.
func byKey(h *History, kinds ...Kind) map[string][]Operation {
	keys := map[string][]Operation{}
	for _, o := range h.Operations {
		if slices.Contains(kinds, o.Kind) && !o.Standby {
			keys[o.Key] = append(keys[o.Key], o)
		}
	}
	for _, ops := range keys {
		slices.SortStableFunc(ops, func(a, b Operation) int { return cmp.Compare(a.Start, b.Start) })
	}
	return keys
}

// linearizable judges the operations on each key: is there an order in which one copy would have given these answers,
// and which keeps to real time? final is the last read of a key, if the database was read back.
func linearizable[S any](check *Check, keys map[string][]Operation, final func(key string) (Operation, bool), obj object[S], limits Limits) Check {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		ops := keys[key]
		for _, o := range ops {
			if o.Outcome == OK {
				check.Judged++
			}
		}
		if f, ok := final(key); ok {
			ops = append(slices.Clone(ops), f)
		}
		judgeKey(check, key, settle(ops, obj), obj, limits)
	}
	return check.conclude()
}

// settle leaves only what has to be put in order. A failed operation did nothing. An unknown one whose value nobody saw
// can be taken for one that did nothing: whoever came after it would have seen it. One whose value was seen happened
// before the end of the first operation that shows it, so its time has an end after all, and the search for an order
// stays small. An unknown one that happened may itself be what shows another.
func settle[S any](ops []Operation, obj object[S]) []Operation {
	var out, open []Operation
	for _, o := range ops {
		switch {
		case o.Outcome == OK:
			out = append(out, o)
		case o.Outcome == Unknown && o.Kind.Writes():
			open = append(open, o)
		}
	}
	at := map[int64]int{} // where in out an unknown operation stands
	for changed := true; changed; {
		changed = false
		for _, o := range open {
			end, seen := firstSight(out, o, obj)
			if !seen {
				continue
			}
			place, placed := at[o.ID]
			switch {
			case !placed:
				at[o.ID], o.End = len(out), end
				out = append(out, o)
				changed = true
			case end < out[place].End:
				out[place].End = end
				changed = true
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Operation) int { return cmp.Compare(a.Start, b.Start) })
	return out
}

// firstSight is the earliest end of an operation that shows the effect of o, but not before o began.
func firstSight[S any](ops []Operation, o Operation, obj object[S]) (end time.Duration, seen bool) {
	for _, other := range ops {
		if obj.saw(other, o.ID) && (!seen || other.End < end) {
			end, seen = other.End, true
		}
	}
	return max(end, o.Start), seen
}

// judgeKey cuts the operations on one key where one of them ran alone, so that the state after it is known, and puts
// each part in order.
func judgeKey[S any](check *Check, key string, ops []Operation, obj object[S], limits Limits) {
	var state S
	begin := 0
	latest := int64(math.MinInt64) // the end of what came before
	for i, o := range ops {
		alone := int64(o.Start) > latest && (i+1 == len(ops) || o.End < ops[i+1].Start)
		latest = max(latest, int64(o.End))
		after, known := obj.after(o)
		if last := i+1 == len(ops); !last && (!alone || !known || i+1-begin < chunk) {
			continue
		}
		if !order(check, key, state, ops[begin:i+1], obj, limits) {
			return // what follows from a state that cannot be is not judged
		}
		state, begin = after, i+1
	}
}

// order searches an order of the operations that begins at state. It says false if there is none, or if the search was
// given up.
func order[S any](check *Check, key string, state S, ops []Operation, obj object[S], limits Limits) bool {
	steps := 0
	model := porcupine.Model{
		Init: func() any { return state },
		Step: func(s, in, _ any) (bool, any) {
			if steps++; steps > limits.Steps {
				return false, s
			}
			after, fits := obj.step(s.(S), in.(Operation))
			return fits, after
		},
		Equal: func(a, b any) bool { return obj.equal(a.(S), b.(S)) },
	}
	var list []porcupine.Operation
	for _, o := range ops {
		list = append(list, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Start), Return: int64(o.End)})
	}
	result, info := porcupine.CheckOperationsVerbose(model, list, 0)
	switch {
	case result == porcupine.Ok:
		return true
	case steps > limits.Steps:
		check.doubt("%s: no order was found in %d steps", key, limits.Steps)
	default:
		culprit := stuck(ops, info)
		check.add(around(ops, culprit), "%s %s fits into no order with those beside it", label(culprit), answer(culprit))
	}
	return false
}

// stuck is the operation at which the longest order that was found ends: the earliest answer that it has no place for.
func stuck(ops []Operation, info porcupine.LinearizationInfo) Operation {
	var longest []porcupine.Operation
	for _, part := range info.PartialLinearizationsOperations() {
		for _, found := range part {
			if len(found) > len(longest) {
				longest = found
			}
		}
	}
	placed := map[int64]bool{}
	for _, o := range longest {
		placed[o.Input.(Operation).ID] = true
	}
	culprit := ops[0]
	found := false
	for _, o := range ops {
		if !placed[o.ID] && (!found || o.End < culprit.End) {
			culprit, found = o, true
		}
	}
	return culprit
}

// around are the operation, those that overlap it, and the last that ended before it.
func around(ops []Operation, culprit Operation) []int64 {
	var ids []int64
	var before *Operation
	for i, o := range ops {
		switch {
		case o.End < culprit.Start:
			if before == nil || o.End > before.End {
				before = &ops[i]
			}
		case o.Start <= culprit.End:
			ids = append(ids, o.ID)
		}
	}
	if before != nil {
		ids = append([]int64{before.ID}, ids...)
	}
	return ids
}

// finalID is the ID of the last read: no client's operation has it.
const finalID = 0

func answer(o Operation) string {
	switch {
	case o.Output == nil:
		return "without an answer"
	case o.Kind == ListAppend || o.Kind == ListRead:
		return "reading " + strings.Join(texts(o.Output.List), " ")
	}
	return "reading " + texts([]int64{o.Output.Value})[0]
}
