package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// place is where the effect of an operation can be seen at the end.
type place struct {
	kind Kind
	id   int64
}

// content holds the operations against what stood in the database at the end. Overwritten values cannot be seen there,
// so it speaks of rows, list elements and transfers.
type content struct {
	h     *History
	found map[place]int
	known map[place]Operation
}

func traceable(k Kind) bool { return k == Ledger || k == ListAppend || k == Transfer }

func contentOf(h *History) content {
	c := content{h: h, found: map[place]int{}, known: map[place]Operation{}}
	for _, o := range h.Operations {
		if traceable(o.Kind) {
			c.known[place{o.Kind, o.ID}] = o
		}
	}
	if h.Final == nil {
		return c
	}
	for _, id := range h.Final.Ledger {
		c.found[place{Ledger, id}]++
	}
	for _, list := range h.Final.Lists {
		for _, id := range list {
			c.found[place{ListAppend, id}]++
		}
	}
	for _, m := range h.Final.Transfers {
		c.found[place{Transfer, m.ID}]++
	}
	return c
}

// kept tells whether the effect of o was there at the end; known is false if that cannot be told.
func (c content) kept(o Operation) (kept, known bool) {
	if !traceable(o.Kind) || !c.h.whole() {
		return false, false
	}
	return c.found[place{o.Kind, o.ID}] > 0, true
}

// each visits the operations whose effect can be traced, if the database was read back.
func (c content) each(outcome Outcome, check *Check, visit func(o Operation, times int)) {
	for _, o := range c.h.Operations {
		if traceable(o.Kind) && o.Outcome == outcome {
			check.Judged++
			if c.h.whole() {
				visit(o, c.found[place{o.Kind, o.ID}])
			}
		}
	}
	check.conclude()
	if !c.h.whole() {
		check.doubt("the database was not read back to the end")
	}
}

func (c content) acknowledged() Check {
	check := Check{Name: CheckAcknowledged, Rule: "what was acknowledged is there at the end"}
	c.each(OK, &check, func(o Operation, times int) {
		if times == 0 {
			check.add([]int64{o.ID}, "%s was acknowledged and is gone", label(o))
		}
	})
	return check
}

func (c content) refused() Check {
	check := Check{Name: CheckRefused, Rule: "what was refused is not there"}
	c.each(Failed, &check, func(o Operation, times int) {
		if times > 0 {
			check.add([]int64{o.ID}, "%s failed with %s and is there nevertheless", label(o), reason(o))
		}
	})
	return check
}

func (c content) twice() Check {
	check := Check{Name: CheckTwice, Rule: "nothing is there twice", Judged: len(c.found)}
	for _, p := range c.places() {
		if n := c.found[p]; n > 1 {
			check.add([]int64{p.id}, "%s is there %d times", c.name(p), n)
		}
	}
	return check.conclude()
}

func (c content) foreign() Check {
	check := Check{Name: CheckForeign, Rule: "nothing is there that nobody wrote", Judged: len(c.found)}
	for _, p := range c.places() {
		if _, ok := c.known[p]; !ok {
			check.add([]int64{p.id}, "%s %d is there, and no client wrote it", p.kind, p.id)
		}
	}
	return check.conclude()
}

func (c content) places() []place {
	return slices.SortedFunc(maps.Keys(c.found), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(rank(a.kind), rank(b.kind)))
	})
}

func (c content) name(p place) string {
	if o, ok := c.known[p]; ok {
		return label(o)
	}
	return fmt.Sprintf("%s %d", p.kind, p.id)
}

// reason is under what errors are counted: the SQLSTATE, or what happened to the connection.
func reason(o Operation) string {
	if o.SQLSTATE != "" {
		return o.SQLSTATE
	}
	if o.Error != "" {
		return o.Error
	}
	return "no reason given"
}
