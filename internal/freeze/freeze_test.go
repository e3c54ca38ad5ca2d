package freeze

import (
	"errors"
	"os/exec"
	"testing"
	"time"
)

// Of several processes those that live stand still, and those that have ended are no fault, reaped or not.
func TestProcessesPassesOverWhatHasEnded(t *testing.T) {
	start := func(name string, args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(name, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	lives, zombie, gone := start("sleep", "60"), start("true"), start("true")
	t.Cleanup(func() { _ = lives.Process.Kill(); _ = lives.Wait() })
	t.Cleanup(func() { _ = zombie.Wait() })
	if err := gone.Wait(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); !errors.Is(stands(zombie.Process.Pid), errEnded); time.Sleep(time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatal("true does not end")
		}
	}
	Processes(t, []int{zombie.Process.Pid, gone.Process.Pid, lives.Process.Pid})
	if err := stands(lives.Process.Pid); err != nil {
		t.Errorf("the one that lives: %v", err)
	}
}
