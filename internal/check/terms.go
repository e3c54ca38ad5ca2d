package check

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Reign is one member's acknowledgements of writes on one timeline.
type Reign struct {
	Timeline     cluster.Timeline `json:"timeline"`
	Term         uint64           `json:"term,omitempty"` // zero: the history does not tell
	Member       string           `json:"member,omitempty"`
	Acknowledged int              `json:"acknowledged"`
	First        time.Duration    `json:"first"` // when the first answer came
	Last         time.Duration    `json:"last"`
}

// reigns groups the acknowledged writes whose timeline is known, in order of timelines, then of the first answer.
func reigns(h *History) []Reign {
	type key struct {
		timeline cluster.Timeline
		member   string
	}
	found := map[key]*Reign{}
	for _, o := range h.Operations {
		if !acknowledgedWrite(o) {
			continue
		}
		k := key{o.Timeline, o.Member}
		r := found[k]
		if r == nil {
			r = &Reign{Timeline: o.Timeline, Member: o.Member, Term: termOf(h, o), First: o.End}
			found[k] = r
		}
		r.Acknowledged++
		r.First, r.Last = min(r.First, o.End), max(r.Last, o.End)
	}
	var all []Reign
	for _, r := range found {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Reign) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.First, b.First), cmp.Compare(a.Member, b.Member))
	})
	return all
}

func acknowledgedWrite(o Operation) bool {
	return o.Outcome == OK && o.Kind.Writes() && o.Timeline > 0
}

// termOf is the term of an operation: as recorded, else the highest on its timeline that had begun by its end.
func termOf(h *History, o Operation) uint64 {
	if o.Term > 0 {
		return o.Term
	}
	var term uint64
	for _, t := range h.Terms {
		if t.Timeline == o.Timeline && t.From <= o.End {
			term = max(term, t.Number)
		}
	}
	return term
}

// terms looks for two members that acknowledge in overlapping terms. Every promotion begins a timeline with a higher
// number, so a write tells by its timeline whose it is. Three things are told apart, for a write acknowledged on a
// timeline after a client had an acknowledgement from a newer one:
//
//   - It was sent only after that, so the older leader certainly acknowledged during the newer term: a violation, unless
//     the database holds it at the end.
//   - It was sent before, and is there at the end: a late answer to a commit that the newer history contains, as a server
//     gives it that was frozen in between. Harmless.
//   - It was sent before, and is not there at the end: lost (which another check says); whether the answer left before
//     the newer term began cannot be told from outside.
//
// What was overwritten (registers) cannot be traced: only its first case is judged here. Besides, two members on one
// timeline, and a member that acknowledges on the timeline of a term that another one holds, are violations.
func terms(h *History, c content) Check {
	check := Check{Name: CheckTerms, Rule: "no two members acknowledge in overlapping terms"}
	first := firstNewer(h)
	late, lost := 0, 0
	for _, o := range h.Operations {
		if !acknowledgedWrite(o) {
			continue
		}
		check.Judged++
		newer, ok := first[o.Timeline]
		if !ok || o.End <= newer.End {
			continue
		}
		kept, known := c.kept(o)
		switch {
		case o.Start > newer.End && !kept:
			check.add([]int64{newer.ID, o.ID}, "%s was sent and acknowledged after %s had been", label(o), label(newer))
		case kept || !known:
			late++
		default:
			lost++
		}
	}
	twoOnOne(h, &check)
	check.conclude()
	if late > 0 {
		check.Note = plural(late, "write was", "writes were") + " answered late, after a newer term had begun, and not against it"
	}
	if lost > 0 {
		check.doubt("%s acknowledged after a newer term had begun and then lost, but sent before: when the answer left the server is not known", plural(lost, "write was", "writes were"))
	}
	return check
}

// firstNewer is, for each timeline, the earliest acknowledgement on a newer one.
func firstNewer(h *History) map[cluster.Timeline]Operation {
	earliest := map[cluster.Timeline]Operation{}
	for _, o := range h.Operations {
		if e, ok := earliest[o.Timeline]; acknowledgedWrite(o) && (!ok || o.End < e.End) {
			earliest[o.Timeline] = o
		}
	}
	newer := map[cluster.Timeline]Operation{}
	for old := range earliest {
		for timeline, o := range earliest {
			if n, ok := newer[old]; timeline > old && (!ok || o.End < n.End) {
				newer[old] = o
			}
		}
	}
	return newer
}

// twoOnOne finds timelines on which another member than the first, or than the term's holder, acknowledged.
func twoOnOne(h *History, check *Check) {
	type seen struct{ named, any Operation }
	first := map[cluster.Timeline]*seen{}
	doubtful := map[cluster.Timeline]bool{}
	told := map[string]bool{}
	for _, o := range h.Operations {
		if !acknowledgedWrite(o) || o.Member == "" {
			continue
		}
		s := first[o.Timeline]
		if s == nil {
			s = &seen{any: o}
			first[o.Timeline] = s
		}
		if !named(o) {
			doubtful[o.Timeline] = doubtful[o.Timeline] || o.Member != s.any.Member
			continue
		}
		if s.named.Member == "" {
			s.named = o
		}
		if holders := holdersOf(h, o.Timeline); len(holders) > 0 && !slices.Contains(holders, o.Member) && !told[o.Member] {
			told[o.Member] = true
			check.add([]int64{o.ID}, "%s: that timeline belongs to %s", label(o), strings.Join(holders, ", "))
		}
		if o.Member != s.named.Member && !told[s.named.Member+" "+o.Member] {
			told[s.named.Member+" "+o.Member] = true
			check.add([]int64{s.named.ID, o.ID}, "%s and %s were acknowledged by two members on one timeline", label(s.named), label(o))
		}
	}
	for _, timeline := range slices.Sorted(maps.Keys(doubtful)) {
		if doubtful[timeline] {
			check.doubt("timeline %d was answered from several addresses, which may be one member's", timeline)
		}
	}
}

// named tells whether the member is known by name: an address always has a colon.
func named(o Operation) bool { return !strings.Contains(o.Member, ":") }

func holdersOf(h *History, timeline cluster.Timeline) []string {
	var holders []string
	for _, t := range h.Terms {
		if t.Timeline == timeline && !slices.Contains(holders, t.Holder) {
			holders = append(holders, t.Holder)
		}
	}
	return holders
}
