package check

import (
	"slices"
	"strconv"
)

// registers judges the registers as one copy that is read, written, and written if it holds what is expected. It holds
// for confirmed reads only: a plain read on a deposed primary may be old.
func registers(h *History, limits Limits) Check {
	check := Check{Name: CheckRegisters, Rule: "registers behave like one copy"}
	final := func(key string) (Operation, bool) {
		if !h.whole() {
			return Operation{}, false
		}
		v, ok := h.Final.Registers[key]
		return lastRead(h, RegisterRead, key, &Output{Value: v}), ok
	}
	obj := object[int64]{step: stepRegister, after: afterRegister, equal: func(a, b int64) bool { return a == b }, saw: sawRegister}
	return linearizable(&check, byKey(h, RegisterWrite, RegisterRead, RegisterCAS), final, obj, limits)
}

// lastRead is the read of the whole database after the end, as an operation on one key.
func lastRead(h *History, kind Kind, key string, out *Output) Operation {
	end := h.end()
	return Operation{ID: finalID, Kind: kind, Key: key, Output: out, Route: "final read", Start: end + 1, End: end + 2, Outcome: OK}
}

func stepRegister(state int64, o Operation) (int64, bool) {
	switch o.Kind {
	case RegisterWrite:
		return o.ID, true
	case RegisterCAS:
		if o.Outcome == Unknown { // its value was seen, so it found what it expected
			return o.ID, o.Input != nil && state == o.Input.Expect
		}
		after, known := afterRegister(o)
		return after, known && o.Output.Value == state
	}
	return state, o.Output != nil && o.Output.Value == state
}

// afterRegister is the value that an operation leaves.
func afterRegister(o Operation) (int64, bool) {
	switch {
	case o.Kind == RegisterWrite:
		return o.ID, true
	case o.Outcome == Unknown || o.Output == nil:
		return 0, false
	case o.Kind == RegisterCAS && o.Input != nil && o.Output.Value == o.Input.Expect:
		return o.ID, true
	}
	return o.Output.Value, true
}

func sawRegister(o Operation, id int64) bool {
	if o.Outcome == Unknown {
		return o.Kind == RegisterCAS && o.Input != nil && o.Input.Expect == id
	}
	return o.Kind != RegisterWrite && o.Output != nil && o.Output.Value == id
}

// lists judges the arrays: an append answers with the whole array, itself at the end.
func lists(h *History, limits Limits) Check {
	check := Check{Name: CheckLists, Rule: "lists behave like one copy"}
	final := func(key string) (Operation, bool) {
		if !h.whole() {
			return Operation{}, false
		}
		return lastRead(h, ListRead, key, &Output{List: h.Final.Lists[key]}), true
	}
	obj := object[[]int64]{step: stepList, after: afterList, equal: slices.Equal[[]int64], saw: sawList}
	return linearizable(&check, byKey(h, ListAppend, ListRead), final, obj, limits)
}

func stepList(state []int64, o Operation) ([]int64, bool) {
	if o.Kind == ListAppend {
		state = append(slices.Clip(state), o.ID)
		if o.Outcome == Unknown {
			return state, true
		}
	}
	return state, o.Output != nil && slices.Equal(o.Output.List, state)
}

func afterList(o Operation) ([]int64, bool) {
	if o.Outcome == Unknown || o.Output == nil {
		return nil, false
	}
	return o.Output.List, true
}

func sawList(o Operation, id int64) bool {
	return o.Output != nil && slices.Contains(o.Output.List, id)
}

func texts(ids []int64) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = strconv.FormatInt(id, 10)
	}
	return out
}
