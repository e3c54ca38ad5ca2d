package drill

import (
	"testing"
	"time"
)

// TestJudgeFindsEveryViolation plants one violation of each kind.
func TestJudgeFindsEveryViolation(t *testing.T) {
	now := time.Now()
	good := &Traffic{acked: []ack{{row{1, 1}, now}, {row{1, 2}, now}}, unknown: []row{{1, 3}}, refused: []row{{1, 4}}}
	for _, c := range []struct {
		name  string
		found map[row]int
		want  [3]int // missing, doubled, ghosts
	}{
		{"all there", map[row]int{{1, 1}: 1, {1, 2}: 1}, [3]int{}},
		{"unknown outcome, committed", map[row]int{{1, 1}: 1, {1, 2}: 1, {1, 3}: 1}, [3]int{}},
		{"acknowledged row lost", map[row]int{{1, 1}: 1}, [3]int{1, 0, 0}},
		{"row twice", map[row]int{{1, 1}: 2, {1, 2}: 1}, [3]int{0, 1, 0}},
		{"refused row there", map[row]int{{1, 1}: 1, {1, 2}: 1, {1, 4}: 1}, [3]int{0, 0, 1}},
	} {
		v := good.judge(c.found)
		if got := [3]int{len(v.Missing), len(v.Doubled), len(v.Ghosts)}; got != c.want {
			t.Errorf("%s: missing, doubled, ghosts = %v, want %v", c.name, got, c.want)
		}
		if v.OK() != (c.want == [3]int{}) {
			t.Errorf("%s: OK is %v", c.name, v.OK())
		}
	}
}

func TestLongestGapCountsBothEnds(t *testing.T) {
	begun := time.Now().Add(-10 * time.Second)
	tr := &Traffic{begun: begun, cancel: func() {}, acked: []ack{{row{1, 1}, begun.Add(time.Second)}, {row{1, 2}, begun.Add(2 * time.Second)}}}
	r := tr.Stop()
	if r.Gap < 8*time.Second || !r.GapBegan.Equal(begun.Add(2*time.Second)) {
		t.Errorf("gap %s from %s: the silence at the end must count", r.Gap, r.GapBegan)
	}
}
