package bootclock_test

import (
	"context"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
)

func TestAhead(t *testing.T) {
	r := bootclock.Read()
	same := bootclock.Reading{Boot: r.Boot.Add(time.Minute), Wall: r.Wall.Add(time.Minute)}
	if d := r.Ahead(same); d != 0 {
		t.Errorf("both went on by a minute: ahead by %s", d)
	}
	stopped := bootclock.Reading{Boot: r.Boot.Add(time.Second), Wall: r.Wall.Add(time.Minute)}
	if d := r.Ahead(stopped); d != 59*time.Second {
		t.Errorf("the wall clock went on by a minute, the boot clock by a second: ahead by %s", d)
	}
	if d := r.Ahead(bootclock.Read()); d > time.Second || d < -time.Second {
		t.Errorf("two readings in a row are %s apart: Go's monotonic reading takes part?", d)
	}
}

func TestAwaitJumpsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bootclock.AwaitJumps(ctx, func() { t.Error("nobody has set the clock") }) }()
	time.Sleep(20 * time.Millisecond)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
