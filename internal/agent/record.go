package agent

import (
	"time"

	"github.com/havenha/haven/internal/ha"
)

// Entry is one line of the journal: a decision with the view and memory it was made from, or the outcome of an action.
type Entry struct {
	At       time.Time    `json:"at"`
	Member   string       `json:"member"`
	View     *ha.View     `json:"view,omitempty"`
	Memory   *ha.Memory   `json:"memory,omitempty"`
	Decision *ha.Decision `json:"decision,omitempty"`
	Outcome  *ha.Outcome  `json:"outcome,omitempty"`
}

// record journals and logs a decision if it differs from the one before.
func (a *Agent) record(v ha.View, d ha.Decision) {
	last := a.st.last
	if d.Action.Kind == last.Action.Kind && d.Action.Member == last.Action.Member && d.Reason == last.Reason && v.Outcome == nil {
		return
	}
	m := a.st.memory
	a.opt.Journal.Record(Entry{At: v.Wall, Member: v.Me.Name, View: &v, Memory: &m, Decision: &d})
	if d.Reason != last.Reason {
		a.log.Info(d.Reason.Text, "reason", d.Reason.Code, "action", d.Action.Kind)
	}
}

func (a *Agent) recordOutcome(o *ha.Outcome) {
	a.opt.Journal.Record(Entry{At: time.Now(), Member: a.opt.Node.Name, Outcome: o})
}
