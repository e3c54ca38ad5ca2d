package tiny

import "testing"

func TestGrade(t *testing.T) {
	for _, c := range []struct {
		points int
		open   bool
		want   string
	}{{-1, true, "invalid"}, {7, true, "passed"}, {3, true, "failed"}, {3, false, "closed"}} {
		if got := Grade(c.points, 5, c.open); got != c.want {
			t.Errorf("Grade(%d) = %s, want %s", c.points, got, c.want)
		}
	}
}

func TestLoop(t *testing.T) {
	if n := Loop(10); n != 10 {
		t.Errorf("Loop(10) = %d", n)
	}
}
