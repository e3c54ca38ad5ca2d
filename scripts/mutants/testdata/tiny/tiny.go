// Package tiny is what the tests of mutants turn the guards of.
package tiny

// Grade has a guard that its test holds, and one that it does not.
func Grade(points, limit int, open bool) string {
	if points < 0 { // guard: negative
		return "invalid"
	}
	switch {
	case points >= limit && open: // guard: pass@1,2
		return "passed"
	case !open: // guard: closed
		return "closed"
	}
	return word(points)
}

func word(points int) string {
	if zero(points) {
		return "nothing"
	}
	return "failed"
}

func zero(points int) bool {
	return points == 0 // guard: zero
}

// Loop ends when its guard holds.
func Loop(n int) int {
	for {
		if n >= 10 { // guard: endless
			return n
		}
		n = step(n)
	}
}

func step(n int) int {
	if n == 9 { // guard: never-reached
		return 10
	}
	return n + 1
}
