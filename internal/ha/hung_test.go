package ha

import (
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// TestKnocksProveNothingWhenLate: tries that were not made in time say nothing about the server, nor do those before them.
func TestKnocksProveNothingWhenLate(t *testing.T) {
	const limit = 2 * time.Second
	at := func(seconds float64) cluster.Instant {
		return cluster.Instant(time.Hour).Add(time.Duration(seconds * float64(time.Second)))
	}
	silent := func(due, began, ended float64) Knock {
		return Knock{Due: at(due), Began: at(began), Ended: at(ended), Text: "timeout"}
	}
	answered, stalls := silent(8, 8, 8), silent(4, 4, 6)
	answered.Answered, stalls.Connected = true, true
	view := usual()
	for _, test := range []struct {
		name  string
		tries []Knock
		hung  bool
	}{
		{"three in ten seconds", []Knock{silent(0, 0, 2), silent(4, 4, 6), silent(8, 8, 10)}, true},
		{"each a little late", []Knock{silent(0, 0.9, 3), silent(4, 4.9, 7.8), silent(8, 8.9, 11)}, true},
		{"two in a long time", []Knock{silent(0, 0, 2), silent(20, 20, 22)}, false},
		{"many in a short time", []Knock{silent(0, 0, 2), silent(2, 2, 4), silent(4, 4, 6), silent(6, 6, 8)}, false},
		{"an answer between", []Knock{silent(0, 0, 2), silent(4, 4, 6), answered, silent(8, 8, 10), silent(12, 12, 14)}, false},
		{"one was answered, but its write stalled", []Knock{silent(0, 0, 2), stalls, silent(8, 8, 10), silent(12, 12, 14)}, false},
		{"the agent was stopped between two", []Knock{silent(0, 0, 2), silent(4, 4, 6), silent(8, 23, 25)}, false},
		{"the agent was stopped in the middle of one", []Knock{silent(0, 0, 2), silent(4, 4, 6), silent(8, 8, 23)}, false},
		{"and then it really hangs", []Knock{silent(8, 8, 23), silent(25, 25, 27), silent(29, 29, 31), silent(33, 33, 35)}, true},
	} {
		view.Server.Knocks = Knocks{}
		for _, k := range test.tries {
			view.Server.Knocks.Note(k, limit)
		}
		if got := hung(view); got != test.hung {
			t.Errorf("%s: hung %v, want %v: %+v", test.name, got, test.hung, view.Server.Knocks)
		}
	}
}
