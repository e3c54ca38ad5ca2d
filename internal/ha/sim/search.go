package sim

import (
	"fmt"
	"slices"
)

// Search plays a story again and again, with every placement of up to Budget faults out of a set at the boundaries between
// the steps of its actions: depth first, so that a placement's boundaries are known before more is placed behind them.
type Search struct {
	Before []string // lines of a scenario up to the story
	Story  []string
	After  []string // lines from the end of the story; the last is settle as a rule
	Faults []string // commands; `it` is whoever is between two steps
	Budget int
	Within int // boundaries from the beginning of the story on, beyond which no fault is placed
}

// Found is what a search went through.
type Found struct {
	Runs       int // placements that were played
	Boundaries int // that were crossed in them
	Failed     *Scenario
	Failure    *Violation
}

type placement struct {
	at    int
	fault string
}

// Run ends with the first placement that breaks an invariant, or after all.
func (s Search) Run() (Found, error) {
	var f Found
	err := s.place(&f, nil)
	return f, err
}

func (s Search) place(f *Found, placed []placement) error {
	crossed, err := s.play(f, placed)
	if err != nil || f.Failure != nil || len(placed) == s.Budget {
		return err
	}
	from := 1
	if n := len(placed); n > 0 {
		from = placed[n-1].at + 1
	}
	for at := from; at <= min(crossed, s.Within); at++ {
		for _, fault := range s.Faults {
			if err := s.place(f, append(slices.Clone(placed), placement{at, fault})); err != nil || f.Failure != nil {
				return err
			}
		}
	}
	return nil
}

// play plays one placement, and tells how many boundaries were crossed since the story began.
func (s Search) play(f *Found, placed []placement) (int, error) {
	text := ""
	lines := slices.Clone(s.Before)
	for _, p := range placed {
		lines = append(lines, fmt.Sprintf("at %d of any : %s", p.at, p.fault))
	}
	for _, line := range slices.Concat(lines, s.Story, s.After) {
		text += line + "\n"
	}
	sc, err := ReadScenario(text)
	if err != nil {
		return 0, err
	}
	w := New(sc.Options)
	began := -1
	for i, st := range sc.Steps {
		w.Run(w.now+st.After, nil)
		if began < 0 && i >= len(sc.Steps)-s.steps() {
			began = w.crossed
		}
		if w.failure == nil {
			err = w.stepLine(st)
		}
		if err != nil || w.failure != nil {
			break
		}
	}
	f.Runs++
	f.Boundaries += w.crossed
	if w.failure != nil {
		f.Failed, f.Failure = &sc, w.failure
	}
	return w.crossed - max(began, 0), err
}

// steps is how many steps story and what follows it are made of.
func (s Search) steps() int {
	sc, err := ReadScenario("members 2\n" + joinLines(s.Story) + joinLines(s.After))
	if err != nil {
		return 0
	}
	return len(sc.Steps)
}

func joinLines(lines []string) string {
	text := ""
	for _, l := range lines {
		text += "\n" + l
	}
	return text
}
