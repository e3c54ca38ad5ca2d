package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/tree"
)

// DidYouMean names the candidate nearest to a mistyped word, as the end of a sentence; nothing when none is near.
func DidYouMean(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+2
	for _, c := range candidates {
		if c == "*" || c == "[]" {
			continue
		}
		d := distance(strings.ToLower(word), c)
		if d == bestDistance && best != "" {
			continue
		}
		if d < bestDistance || (d == bestDistance && best == "" && strings.HasPrefix(c, word)) {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean `%s`?", best)
}

// distance counts the insertions, deletions, replacements and swaps of neighbours between two words.
func distance(a, b string) int {
	before, last, row := []int(nil), make([]int, len(b)+1), []int(nil)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row = make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// elsewhere finds where a key that is unknown here belongs: the one path that ends with its name.
func (s *Table) elsewhere(name string) string {
	if len(name) < 3 {
		return ""
	}
	var found []string
	for _, k := range Keys() {
		_, last, _ := tree.CutLast(k.Path)
		if last == name && !strings.ContainsAny(k.Path, "[*") && !strings.HasPrefix(k.Path, "etcd3") {
			found = append(found, k.Path)
		}
	}
	found = slices.Compact(found)
	if len(found) != 1 {
		return ""
	}
	return fmt.Sprintf("; it belongs in `%s`", found[0])
}
