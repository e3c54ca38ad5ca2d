package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEverySectionHasAScenario holds the page and the stories against each other.
func TestEverySectionHasAScenario(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/behaviour.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, s := range stories(t) {
		for _, n := range s.sections {
			told[n] = true
		}
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (?:Appendix )?([0-9]+(?:\.[0-9]+)*|[A-Z])\. `).FindAllStringSubmatch(string(page), -1) {
		there[m[1]] = true
		if !told[m[1]] {
			t.Errorf("behaviour.md, section %s: no scenario belongs to it", m[1])
		}
	}
	if len(there) < 19 {
		t.Errorf("behaviour.md has only %d sections", len(there))
	}
	for _, s := range stories(t) {
		for _, n := range s.sections {
			if !there[n] {
				t.Errorf("%s names section %s, which behaviour.md does not have", s.name, n)
			}
		}
		if !strings.Contains(string(page), "`"+s.name+"`") {
			t.Errorf("behaviour.md does not name the scenario %s", s.name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^Scenarios?: (.*)$").FindAllStringSubmatch(string(page), -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[1], -1) {
			if _, err := os.Stat(filepath.Join("testdata", name[1]+".txt")); err != nil {
				t.Errorf("behaviour.md names the scenario %s, which is not there", name[1])
			}
		}
	}
}
