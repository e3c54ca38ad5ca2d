package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// column is a column of a table.
type column struct {
	name  string
	right bool
}

// grid is a table with borders as patronictl draws it; its title stands in the upper border.
type grid struct {
	title   string
	columns []column
	rows    [][]string
}

func (g grid) String() string {
	widths := g.widths()
	var rule strings.Builder
	for _, w := range widths {
		rule.WriteString("+" + strings.Repeat("-", w+2))
	}
	rule.WriteString("+")
	line := rule.String()
	var b strings.Builder
	top := line
	if g.title != "" {
		top = "+" + g.title
		if rest := utf8.RuneCountInString(top); rest < len(line) {
			top += line[rest:]
		}
	}
	b.WriteString(top + "\n")
	names := make([]string, len(g.columns))
	for i, c := range g.columns {
		names[i] = c.name
	}
	g.line(&b, names, widths)
	b.WriteString(line + "\n")
	tall := g.tall()
	for i, r := range g.rows {
		if i > 0 && tall {
			b.WriteString(line + "\n")
		}
		g.row(&b, r, widths)
	}
	b.WriteString(line + "\n")
	return b.String()
}

// tall tells whether any cell has several lines: then there are rules between all rows.
func (g grid) tall() bool {
	for _, r := range g.rows {
		if strings.Contains(strings.Join(r, ""), "\n") {
			return true
		}
	}
	return false
}

func (g grid) widths() []int {
	w := make([]int, len(g.columns))
	for i, c := range g.columns {
		w[i] = utf8.RuneCountInString(c.name)
		for _, r := range g.rows {
			for _, l := range strings.Split(r[i], "\n") {
				w[i] = max(w[i], utf8.RuneCountInString(l))
			}
		}
	}
	return w
}

func (g grid) row(b *strings.Builder, r []string, widths []int) {
	height := 1
	for _, cell := range r {
		height = max(height, strings.Count(cell, "\n")+1)
	}
	for n := range height {
		cells := make([]string, len(r))
		for i, cell := range r {
			if lines := strings.Split(cell, "\n"); n < len(lines) {
				cells[i] = lines[n]
			}
		}
		g.line(b, cells, widths)
	}
}

func (g grid) line(b *strings.Builder, cells []string, widths []int) {
	for i, cell := range cells {
		b.WriteString("| " + pad(cell, widths[i], g.columns[i].right) + " ")
	}
	b.WriteString("|\n")
}

func pad(s string, width int, right bool) string {
	blanks := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
	if right {
		return blanks + s
	}
	return s + blanks
}

// tsv is the table as tab separated values, with a line of names. Line breaks and tabs in cells become blanks.
func (g grid) tsv() string {
	clean := strings.NewReplacer("\n", " ", "\t", " ")
	var b strings.Builder
	write := func(cells []string) {
		for i, c := range cells {
			cells[i] = clean.Replace(c)
		}
		fmt.Fprintln(&b, strings.Join(cells, "\t"))
	}
	var names []string
	for _, c := range g.columns {
		names = append(names, c.name)
	}
	write(names)
	for _, r := range g.rows {
		write(append([]string(nil), r...))
	}
	return b.String()
}

// aligned is a table without borders, indented by two blanks.
func aligned(rows [][]string) string {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := "  "
		for i, cell := range r {
			line += pad(cell, widths[i], false) + "  "
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
