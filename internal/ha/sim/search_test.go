package sim

import "testing"

// TestEveryPlacement puts every two faults of a set at every two moments between the steps of a switchover, a handover
// after a crash and a failover, in worlds of two and three members.
func TestEveryPlacement(t *testing.T) {
	faults := []string{"kill it agent", "kill it server", "kill it host", "cut it from store", "lose answer"}
	for _, c := range []struct {
		name    string
		members string
		policy  string
		story   []string
		within  int
	}{
		{"switchover of two", "members 2", "policy on ttl=6s", []string{"switchover"}, 12},
		{"switchover of three, quorum", "members 3", "policy quorum ttl=6s", []string{"switchover"}, 9},
		{"crash, strict", "members 3", "policy on strict ttl=6s", []string{"kill leader server"}, 9},
		{"crash, quorum", "members 3", "policy quorum ttl=6s", []string{"kill leader server"}, 9},
		{"failover", "members 3", "policy on ttl=6s", []string{"kill leader host"}, 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found, err := Search{
				Before: []string{c.members, c.policy, "healthy 60s"},
				Story:  c.story,
				After:  []string{"after 2s", "burst leader", "after 8s", "settle"},
				Faults: faults, Budget: 2, Within: c.within,
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			if found.Failure != nil {
				t.Fatalf("%v\n%s", found.Failure, found.Failed.Text())
			}
			t.Logf("%d placements, %d boundaries", found.Runs, found.Boundaries)
			if found.Runs < 400 {
				t.Errorf("only %d placements were played", found.Runs)
			}
		})
	}
}
