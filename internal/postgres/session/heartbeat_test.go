package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestWhoWaitedTooLongAsksNothing: with too little time left for an answer, a session would be given up whose server is well.
func TestWhoWaitedTooLongAsksNothing(t *testing.T) {
	h := NewHeartbeat(func() (*pgconn.Config, error) {
		t.Error("the server is asked")
		return nil, errors.New("no server")
	})
	<-h.turn
	go func() {
		time.Sleep(50 * time.Millisecond)
		h.turn <- struct{}{}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), leastTime/2)
	defer cancel()
	if _, err := h.Query(ctx, "SELECT 1"); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	<-h.turn // the next one has it
}
