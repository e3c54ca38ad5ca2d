package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// AnyWrite stands for all kinds that write, in the figures: the gap in it is the time in which no write of any kind was
// acknowledged.
const AnyWrite Kind = "any write"

// Series are the figures of one kind of operation by one route.
type Series struct {
	Kind    Kind   `json:"kind"`
	Route   string `json:"route"`
	OK      int    `json:"ok"`
	Failed  int    `json:"failed"`
	Unknown int    `json:"unknown"`
	// Rate is acknowledgements a second over the whole load.
	Rate float64 `json:"rate"`
	// Gap is the longest time without an acknowledgement, from one answer to the next; begin and end of the load count.
	Gap      time.Duration  `json:"gap"`
	GapBegan time.Duration  `json:"gap_began"`
	Errors   map[string]int `json:"errors,omitempty"` // by SQLSTATE, or by what happened to the connection
}

// FaultFigures are what one fault cost, by kind and route: the longest gap between acknowledgements that reached into
// the time from its begin to the next fault's, and the operations that ended in that time without success.
type FaultFigures struct {
	Fault  Fault    `json:"fault"`
	Series []Series `json:"series"`
}

// track is the operations of one kind by one route, in order of their answers.
type track struct {
	kind  Kind
	route string
	ops   []Operation
}

func tracks(h *History) []track {
	type key struct {
		kind  Kind
		route string
	}
	found := map[key][]Operation{}
	kinds := map[string]map[Kind]bool{}
	for _, o := range h.Operations {
		found[key{o.Kind, o.Route}] = append(found[key{o.Kind, o.Route}], o)
		if o.Kind.Writes() {
			found[key{AnyWrite, o.Route}] = append(found[key{AnyWrite, o.Route}], o)
			if kinds[o.Route] == nil {
				kinds[o.Route] = map[Kind]bool{}
			}
			kinds[o.Route][o.Kind] = true
		}
	}
	var all []track
	for k, ops := range found {
		if k.kind == AnyWrite && len(kinds[k.route]) < 2 {
			continue
		}
		slices.SortStableFunc(ops, func(a, b Operation) int { return cmp.Compare(a.End, b.End) })
		all = append(all, track{k.kind, k.route, ops})
	}
	slices.SortFunc(all, func(a, b track) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(rank(a.kind), rank(b.kind)), cmp.Compare(a.kind, b.kind))
	})
	return all
}

func rank(k Kind) int {
	return slices.Index([]Kind{AnyWrite, Ledger, RegisterWrite, RegisterCAS, RegisterRead, ListAppend, ListRead, Transfer, Sum, SessionWrite, SessionRead}, k)
}

func series(h *History) []Series {
	var all []Series
	for _, t := range tracks(h) {
		s := t.figures(0, h.end(), h.end())
		if h.end() > 0 {
			s.Rate = float64(s.OK) / h.end().Seconds()
		}
		all = append(all, s)
	}
	return all
}

// figures counts what ended from begin to end, and finds the longest gap that reaches into that time. stop is when the
// load ended.
func (t track) figures(begin, end, stop time.Duration) Series {
	s := Series{Kind: t.kind, Route: t.route, GapBegan: begin}
	last := time.Duration(0)
	gap := func(until time.Duration) {
		if until > begin && last < end && until-last > s.Gap {
			s.Gap, s.GapBegan = until-last, last
		}
		last = until
	}
	for _, o := range t.ops {
		if o.Outcome == OK {
			gap(o.End)
		}
		if o.End >= begin && (o.End < end || end == stop) {
			s.count(o)
		}
	}
	gap(stop)
	return s
}

func (s *Series) count(o Operation) {
	switch o.Outcome {
	case OK:
		s.OK++
		return
	case Failed:
		s.Failed++
	default:
		s.Unknown++
	}
	if s.Errors == nil {
		s.Errors = map[string]int{}
	}
	s.Errors[reason(o)]++
}

func faultFigures(h *History) []FaultFigures {
	faults := slices.Clone(h.Faults)
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Begin, b.Begin) })
	all := tracks(h)
	var out []FaultFigures
	for i, f := range faults {
		end := h.end()
		for _, next := range faults[i+1:] {
			if next.Begin > f.Begin {
				end = next.Begin
				break
			}
		}
		figures := FaultFigures{Fault: f}
		for _, t := range all {
			figures.Series = append(figures.Series, t.figures(f.Begin, end, h.end()))
		}
		out = append(out, figures)
	}
	return out
}

// liveness judges that the cluster came back: each kind of operation that was acknowledged before the first fault is
// acknowledged again, by some route, after the last fault was undone.
func liveness(h *History) Check {
	check := Check{Name: CheckLiveness, Rule: "after the last fault every kind of operation works again"}
	first, last := h.end(), time.Duration(0)
	for _, f := range h.Faults {
		first, last = min(first, f.Begin), max(last, f.Begin, f.End)
	}
	before, after := map[Kind]bool{}, map[Kind]bool{}
	for _, o := range h.Operations {
		if o.Outcome == OK {
			before[o.Kind] = before[o.Kind] || o.End <= first
			after[o.Kind] = after[o.Kind] || len(h.Faults) == 0 || o.End > last
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(before), func(a, b Kind) int { return rank(a) - rank(b) }) {
		if !before[k] {
			continue
		}
		check.Judged++
		if !after[k] {
			check.add(nil, "no %s was acknowledged after %s", k, seconds(last))
		}
	}
	if check.Judged == 0 && len(h.Operations) > 0 {
		check.Judged = len(h.Operations)
		check.doubt("nothing was acknowledged before the first fault")
	}
	return check.conclude()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
