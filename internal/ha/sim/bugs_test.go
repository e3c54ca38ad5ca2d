package sim

import (
	"testing"
)

// Each of these planted faults of the shell is found by the random schedules, and within few seeds: it takes no luck to find it
// again.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range []string{"keepalive-is-proof", "unguarded-sync", "names-first", "restarted-lsn", "orphans-ignored", "late-recreate", "word-forgotten", "word-unseen", "all-but-one", "round-from-its-end"} {
		t.Run(bug, func(t *testing.T) {
			counts, failed := play(1, 2000, func(s *Scenario) {
				if err := s.Options.Bugs.set(bug); err != nil {
					t.Fatal(err)
				}
			})
			if failed == nil {
				t.Fatalf("2000 schedules do not find it")
			}
			t.Logf("found after %d schedules: %v", counts.Runs, failed)
		})
	}
}
