package check

import (
	"testing"
	"time"
)

// TestGapIsFromAnswerToAnswer: begin and end of the load count, and what fails does not end a gap.
func TestGapIsFromAnswerToAnswer(t *testing.T) {
	ack := func(at time.Duration) Operation {
		return Operation{Kind: Ledger, Route: "proxy", Start: at - ms, End: at, Outcome: OK}
	}
	no := func(at time.Duration) Operation {
		return Operation{Kind: Ledger, Route: "proxy", Start: at - ms, End: at, Outcome: Failed, SQLSTATE: "57P03"}
	}
	for _, c := range []struct {
		name       string
		ops        []Operation
		stopped    time.Duration
		gap, began time.Duration
	}{
		{"between two answers", []Operation{ack(10 * ms), ack(20 * ms), no(50 * ms), ack(95 * ms), ack(100 * ms)}, 101 * ms, 75 * ms, 20 * ms},
		{"before the first", []Operation{ack(60 * ms), ack(70 * ms)}, 80 * ms, 60 * ms, 0},
		{"after the last", []Operation{ack(10 * ms), no(70 * ms)}, 500 * ms, 490 * ms, 10 * ms},
		{"never", []Operation{no(10 * ms)}, 30 * ms, 30 * ms, 0},
		{"answers out of order", []Operation{ack(90 * ms), ack(30 * ms), ack(60 * ms)}, 100 * ms, 30 * ms, 0},
		{"the recorder died", []Operation{ack(10 * ms), no(70 * ms)}, 0, 60 * ms, 10 * ms},
	} {
		s, ok := Judge(&History{Operations: c.ops, Stopped: c.stopped}).Find(Ledger, "proxy")
		if !ok || s.Gap != c.gap || s.GapBegan != c.began {
			t.Errorf("%s: gap %s at %s, want %s at %s", c.name, s.Gap, s.GapBegan, c.gap, c.began)
		}
	}
}

// TestEachFaultHasItsOwnGap: a gap belongs to the fault before it.
func TestEachFaultHasItsOwnGap(t *testing.T) {
	s := healthy()
	outage(s)
	r := Judge(&s.History)
	if len(r.Faults) != 2 {
		t.Fatalf("%d faults", len(r.Faults))
	}
	for i, f := range r.Faults {
		var ledger Series
		for _, s := range f.Series {
			if s.Kind == Ledger {
				ledger = s
			}
		}
		back := s.Faults[i].Begin + 724*ms // two failed tries, 700 ms, and the answer after 4 ms
		if end := ledger.GapBegan + ledger.Gap; end != back {
			t.Errorf("%s: writes came back at %s, want %s", f.Fault.Name, end, back)
		}
		if ledger.Failed != 1 || ledger.Unknown != 1 || ledger.Errors["57P01"] != 1 || ledger.Errors["connect: refused"] != 1 {
			t.Errorf("%s: errors %+v", f.Fault.Name, ledger)
		}
	}
}
