package app

import "log/slog"

// teardown is what has to be undone, in the reverse order of its making.
type teardown struct {
	steps []step
}

type step struct {
	name string
	undo func()
}

func (t *teardown) push(name string, undo func()) {
	t.steps = append(t.steps, step{name, undo})
}

func (t *teardown) unwind(log *slog.Logger) {
	for len(t.steps) > 0 {
		last := t.steps[len(t.steps)-1]
		t.steps = t.steps[:len(t.steps)-1]
		log.Debug("ending", "part", last.name)
		last.undo()
	}
}
