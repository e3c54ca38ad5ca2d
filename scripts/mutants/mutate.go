package main

import (
	"encoding/json"
	"fmt"
	"go/token"
	"os"
	"path/filepath"
	"slices"
)

// way is what is done to a guard.
type way string

const (
	// negated turns the sense of the condition.
	negated way = "negated"
	// removed leaves the code as if the guard had never been written: an operand no longer restricts its &&, or adds to its
	// ||, and an if or case is never taken. A value can only be negated.
	removed way = "removed"
)

// mutant is one change of one guard.
type mutant struct {
	guard
	way way
}

// mutants lists what is to be done to the guards.
func mutants(guards []guard, ways []way) []mutant {
	var out []mutant
	for _, w := range ways {
		for _, g := range guards {
			if w == negated || g.within != token.EQL {
				out = append(out, mutant{g, w})
			}
		}
	}
	return out
}

// text is the mutated source. Expressions stay in it, so that what they use stays used.
func (m mutant) text() []byte {
	expr := string(m.src[m.start:m.end])
	switch {
	case m.way == negated:
		expr = "!(" + expr + ")"
	case m.within == token.LAND:
		expr = "((" + expr + ") || true)"
	default:
		expr = "((" + expr + ") && false)"
	}
	return slices.Concat(m.src[:m.start], []byte(expr), m.src[m.end:])
}

// overlay writes the mutated file and the description of it that go build's -overlay takes into dir, and returns the
// latter's path.
func (m mutant) overlay(dir string) (string, error) {
	changed := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(changed, m.text(), 0o600); err != nil {
		return "", err
	}
	return writeOverlay(dir, map[string]string{m.file: changed})
}

func writeOverlay(dir string, replace map[string]string) (string, error) {
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o600)
}
