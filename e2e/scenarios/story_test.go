package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// story is one file of testdata.
type story struct {
	name     string
	shows    string
	sections []string
	steps    []step
}

// step is a line, with the indented lines below it.
type step struct {
	line  int
	verb  string
	words string // what follows the verb
	block string
}

func (s step) String() string { return strings.TrimSpace(s.verb + " " + s.words) }

// lines are the lines of the block.
func (s step) lines() []string {
	if s.block == "" {
		return nil
	}
	return strings.Split(strings.TrimRight(s.block, "\n"), "\n")
}

func stories(t *testing.T) []story {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	var out []story
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseStory(string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		s.name = strings.TrimSuffix(filepath.Base(f), ".txt")
		out = append(out, s)
	}
	return out
}

// parseStory reads the sentence, the line of sections, and the steps.
func parseStory(text string) (story, error) {
	var s story
	for i, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		indented := strings.HasPrefix(line, "  ")
		switch {
		case s.sections == nil && strings.HasPrefix(line, "Sections:"):
			s.sections = strings.Fields(strings.ReplaceAll(strings.TrimPrefix(line, "Sections:"), ",", " "))
		case s.sections == nil:
			s.shows += bare + " "
		case indented && len(s.steps) > 0: // also a blank line or a # of a block
			s.steps[len(s.steps)-1].block += strings.TrimPrefix(line, "  ") + "\n"
		case bare == "" || strings.HasPrefix(bare, "#"):
		default:
			verb, words, _ := strings.Cut(bare, " ")
			s.steps = append(s.steps, step{line: i + 1, verb: verb, words: strings.TrimSpace(words)})
		}
	}
	if len(s.sections) == 0 || strings.TrimSpace(s.shows) == "" || len(s.steps) == 0 {
		return s, fmt.Errorf("a story has a sentence, a line \"Sections: …\", and steps")
	}
	return s, nil
}
