// Package facts holds what the engine takes for granted about PostgreSQL against real servers, so that a new version of
// PostgreSQL is judged by running it. Each fact is a yes or a no, and a test fails where it does not hold; the times that
// were measured on the way are printed, and are asserted nowhere.
//
// The facts themselves are in the tests. Here is how the figures are kept: one JSON file for each major version, and one
// table of all that are there.
package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Report is what was seen on one PostgreSQL.
type Report struct {
	PostgreSQL string `json:"postgresql"` // for instance 15.18
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	Runs       int    `json:"runs"` // of each fact
	Facts      []Fact `json:"facts"`
}

// Fact is one thing that the engine takes for granted.
type Fact struct {
	Name string `json:"name"`
	// Says is the fact, Leans what of Haven would be wrong without it, and in which file.
	Says  string `json:"says"`
	Leans string `json:"leans"`
	// Holds: every run found it so.
	Holds   bool     `json:"holds"`
	Figures []Figure `json:"figures,omitempty"`
}

// Figure is a measured quantity, one value for each run that had one.
type Figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
}

// Add appends a value to the figure of that name.
func (f *Fact) Add(name, unit string, value float64) {
	for n := range f.Figures {
		if f.Figures[n].Name == name {
			f.Figures[n].Values = append(f.Figures[n].Values, value)
			return
		}
	}
	f.Figures = append(f.Figures, Figure{name, unit, []float64{value}})
}

// String is median, least and greatest value.
func (f Figure) String() string {
	if len(f.Values) == 0 {
		return f.Name + ": none"
	}
	v := slices.Sorted(slices.Values(f.Values))
	median := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return fmt.Sprintf("%s: %s %s (%s to %s)", f.Name, number(median), f.Unit, number(v[0]), number(v[len(v)-1]))
}

func number(v float64) string {
	if v >= 100 || v <= -100 || v == float64(int64(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// Major is the major version, for instance 15.
func (r Report) Major() string {
	major, _, _ := strings.Cut(r.PostgreSQL, ".")
	return major
}

// Save writes the report as facts-pg<major>.json into the folder, and facts.md anew from all such files in it.
func Save(dir string, r Report) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("save the facts: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save the facts: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "facts-pg"+r.Major()+".json"), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("save the facts: %w", err)
	}
	all, err := Load(dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "facts.md"), []byte(Markdown(all)), 0o644); err != nil {
		return fmt.Errorf("save the facts: %w", err)
	}
	return nil
}

// Load reads the reports of a folder, the oldest version first.
func Load(dir string) ([]Report, error) {
	files, err := filepath.Glob(filepath.Join(dir, "facts-pg*.json"))
	var out []Report
	for _, file := range files {
		raw, rerr := os.ReadFile(file)
		var r Report
		err = errors.Join(err, rerr, json.Unmarshal(raw, &r))
		out = append(out, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read the facts in %s: %w", dir, err)
	}
	return out, nil
}
