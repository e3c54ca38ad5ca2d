package freeport

import "testing"

// TestPortsAreGivenOnce: nobody gets a port that was given before, though nobody listens on it yet.
func TestPortsAreGivenOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 300 {
		port, err := Pick()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
		if reserve(port) == nil {
			t.Fatalf("port %d was given, and can be reserved again", port)
		}
	}
}
