package check

import (
	"cmp"
	"maps"
	"slices"
)

// sums judges that transfers neither make nor lose money, in any read, a standby's included: a statement sees one
// snapshot (PostgreSQL manual, Transaction Isolation).
func sums(h *History) Check {
	check := Check{Name: CheckSums, Rule: "transfers keep the sum of all accounts"}
	want := int64(h.Header.Accounts) * h.Header.Balance
	for _, o := range h.Operations {
		if o.Kind != Sum || o.Outcome != OK || o.Output == nil {
			continue
		}
		check.Judged++
		if o.Output.Value != want {
			check.add([]int64{o.ID}, "%s found %d in place of %d", label(o), o.Output.Value, want)
		}
	}
	if h.whole() && h.Header.Accounts > 0 {
		check.Judged++
		balances(h, &check)
	}
	return check.conclude()
}

// balances holds the accounts at the end against the transfers that stand beside them.
func balances(h *History, check *Check) {
	want := map[int]int64{}
	for n := range h.Header.Accounts {
		want[n] = h.Header.Balance
	}
	for _, m := range h.Final.Transfers {
		want[m.From] -= m.Amount
		want[m.To] += m.Amount
	}
	for _, n := range slices.Sorted(maps.Keys(want)) {
		if have := h.Final.Balances[n]; have != want[n] {
			check.add(nil, "account %d holds %d at the end, and by the transfers that are there it should hold %d", n, have, want[n])
		}
	}
}

// sessions judges plain reads by the one thing that is promised of them: on a primary, a session never sees less than
// it has written itself. What a standby answers may be old, and is not judged. A write whose outcome is unknown may come
// at any later time, over a newer one as well: its server goes on with it although the client has left.
func sessions(h *History) Check {
	check := Check{Name: CheckSessions, Rule: "no session reads back to before its own writes"}
	type row struct {
		client, session int
		key             string
	}
	last, late := map[row]Operation{}, lateWrites(h)
	ops := slices.Clone(h.Operations)
	slices.SortStableFunc(ops, func(a, b Operation) int { return cmp.Compare(a.Start, b.Start) })
	for _, o := range ops {
		r := row{o.Client, o.Session, o.Key}
		switch {
		case o.Outcome != OK:
		case o.Kind == SessionWrite:
			last[r] = o
		case o.Kind == SessionRead && !o.Standby && o.Output != nil:
			check.Judged++
			if w, ok := last[r]; ok && o.Output.Value < w.ID && !late[o.Key][o.Output.Value] {
				check.add([]int64{w.ID, o.ID}, "%s found %d, and the same session had written %d", label(o), o.Output.Value, w.ID)
			}
		}
	}
	if h.whole() {
		endOfSessions(h, late, &check)
	}
	return check.conclude()
}

// endOfSessions holds the rows that have one writer each against the last acknowledgement that it got.
func endOfSessions(h *History, late map[string]map[int64]bool, check *Check) {
	last := map[string]Operation{}
	for _, o := range h.Operations {
		if o.Kind == SessionWrite && o.Outcome == OK && o.ID > last[o.Key].ID {
			last[o.Key] = o
		}
	}
	for _, key := range slices.Sorted(maps.Keys(last)) {
		check.Judged++
		if have := h.Final.Sessions[key]; have < last[key].ID && !late[key][have] {
			check.add([]int64{last[key].ID}, "%s was acknowledged, and at the end the row held %d", label(last[key]), have)
		}
	}
}

// lateWrites are the writes of unknown outcome, by row.
func lateWrites(h *History) map[string]map[int64]bool {
	late := map[string]map[int64]bool{}
	for _, o := range h.Operations {
		if o.Kind != SessionWrite || o.Outcome != Unknown {
			continue
		}
		if late[o.Key] == nil {
			late[o.Key] = map[int64]bool{}
		}
		late[o.Key][o.ID] = true
	}
	return late
}
