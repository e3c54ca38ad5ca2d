package postgres_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a test leaves a goroutine behind: whatever watches a server ends with its Instance.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
