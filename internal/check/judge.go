package check

import (
	"fmt"
	"time"
)

// Verdict is what a check concludes.
type Verdict string

// Inconclusive means that the history does not tell: it is neither a pass nor a fail.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// Violation is one thing that must not be, with the operations that show it.
type Violation struct {
	Operations []int64 `json:"operations,omitempty"`
	Text       string  `json:"text"`
}

// Check is one rule and what came of it.
type Check struct {
	Name    string  `json:"name"`
	Rule    string  `json:"rule"`
	Verdict Verdict `json:"verdict"`
	// Judged counts what was looked at, Count the violations; of those the first few are kept.
	Judged     int         `json:"judged"`
	Count      int         `json:"count"`
	Violations []Violation `json:"violations,omitempty"`
	Note       string      `json:"note,omitempty"`
}

// Names of the checks.
const (
	CheckAcknowledged = "acknowledged"
	CheckRefused      = "refused"
	CheckTwice        = "twice"
	CheckForeign      = "foreign"
	CheckTerms        = "terms"
	CheckRegisters    = "registers"
	CheckLists        = "lists"
	CheckSums         = "sums"
	CheckSessions     = "sessions"
	CheckLiveness     = "liveness"
)

// Report is the judgement of a history.
type Report struct {
	Verdict Verdict        `json:"verdict"`
	Header  Header         `json:"header"`
	Took    time.Duration  `json:"took"` // of the load
	Checks  []Check        `json:"checks"`
	Series  []Series       `json:"series"`
	Faults  []FaultFigures `json:"faults,omitempty"`
	Terms   []Reign        `json:"terms,omitempty"`
}

// Check returns the check of that name; ok is false if the history had nothing for it to judge.
func (r Report) Check(name string) (c Check, ok bool) {
	for _, c := range r.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// Find returns the figures of one kind of operation by one route; ok is false if there was no such operation.
func (r Report) Find(kind Kind, route string) (s Series, ok bool) {
	for _, s := range r.Series {
		if s.Kind == kind && s.Route == route {
			return s, true
		}
	}
	return Series{}, false
}

// Limits bound a judgement.
type Limits struct {
	// Steps bounds the search for an order of the operations on one key; beyond it the check is inconclusive.
	Steps int
	// Shown is how many violations of a check are kept in the report.
	Shown int
}

// DefaultLimits are those of Judge: enough for hours of the default load, and under a second for each key.
func DefaultLimits() Limits { return Limits{Steps: 500_000, Shown: 20} }

// Judge judges a history within the default limits. It does not change the history.
func Judge(h *History) Report { return JudgeWithin(h, DefaultLimits()) }

// JudgeWithin judges a history. A check that has nothing to judge is left out of the report; a history without any
// operation is inconclusive.
func JudgeWithin(h *History, limits Limits) Report {
	r := Report{Header: h.Header, Took: h.end(), Series: series(h), Faults: faultFigures(h), Terms: reigns(h)}
	content := contentOf(h)
	for _, c := range []Check{
		content.acknowledged(), content.refused(), content.twice(), content.foreign(), terms(h, content),
		registers(h, limits), lists(h, limits), sums(h), sessions(h), liveness(h),
	} {
		if c.Judged == 0 {
			continue
		}
		c.excuse(h.Header.SynchronousCommit)
		if len(c.Violations) > limits.Shown {
			c.Violations = c.Violations[:limits.Shown]
		}
		r.Checks = append(r.Checks, c)
	}
	r.Verdict = overall(r.Checks)
	return r
}

// overall is a fail if any check fails, and a pass only if all pass.
func overall(checks []Check) Verdict {
	v := Pass
	for _, c := range checks {
		if c.Verdict == Fail {
			return Fail
		}
		if c.Verdict == Inconclusive {
			v = Inconclusive
		}
	}
	if len(checks) == 0 {
		return Inconclusive
	}
	return v
}

// add notes a violation.
func (c *Check) add(ids []int64, format string, args ...any) {
	c.Count++
	c.Violations = append(c.Violations, Violation{Operations: ids, Text: fmt.Sprintf(format, args...)})
}

// conclude sets the verdict by the violations found; a doubt that was noted stays if there are none.
func (c *Check) conclude() Check {
	switch {
	case c.Count > 0:
		c.Verdict = Fail
	case c.Verdict == "":
		c.Verdict = Pass
	}
	return *c
}

// doubt sets the verdict to inconclusive, unless there are violations, and says why.
func (c *Check) doubt(format string, args ...any) {
	if c.Verdict != Fail {
		c.Verdict = Inconclusive
	}
	if c.Note != "" {
		c.Note += "; "
	}
	c.Note += fmt.Sprintf(format, args...)
}

// excuse takes back a fail where nothing was promised: a commit that did not wait for a standby may be lost with its
// server (PostgreSQL manual, synchronous_commit), and whoever had seen it sees it vanish.
func (c *Check) excuse(synchronousCommit string) {
	if synchronousCommit != "off" && synchronousCommit != "local" || c.Verdict != Fail {
		return
	}
	switch c.Name {
	case CheckAcknowledged, CheckRegisters, CheckLists, CheckSessions:
		c.Verdict = Inconclusive
		c.doubt("with synchronous_commit=%s no commit is promised to outlive its server", synchronousCommit)
	}
}

// label names an operation for people.
func label(o Operation) string {
	text := fmt.Sprintf("%s %d", o.Kind, o.ID)
	if o.Key != "" {
		text += " on " + o.Key
	}
	text += fmt.Sprintf(" (client %d, %s", o.Client, o.Route)
	if o.Member != "" {
		text += ", " + o.Member
	}
	if o.Timeline > 0 {
		text += fmt.Sprintf(", timeline %d", o.Timeline)
	}
	return text + fmt.Sprintf(", %s to %s)", seconds(o.Start), seconds(o.End))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
