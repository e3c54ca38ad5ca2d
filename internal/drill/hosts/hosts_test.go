package hosts

import (
	"context"
	"io"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func make3(t *testing.T) (*Network, []*Host) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	n, err := New("a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts := n.Hosts()
	return n, hosts
}

func reaches(t *testing.T, from, to *Host, port uint16) bool {
	t.Helper()
	ok, err := from.Reaches(t.Context(), to, port)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// echo answers on a host what it is sent.
func echo(t *testing.T, h *Host, port int) {
	t.Helper()
	var l net.Listener
	err := h.space.inside(func() (err error) { l, err = net.Listen("tcp4", h.At(port)); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
}

func ask(from *Host, address string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	begun := time.Now()
	c, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(begun.Add(2 * time.Second))
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, make([]byte, 100_000))
	return time.Since(begun), err
}

func TestHostsTalkAndStrangersDoNot(t *testing.T) {
	_, h := make3(t)
	echo(t, h[1], 4000)
	if took, err := ask(h[0], h[1].At(4000)); err != nil {
		t.Fatal(err)
	} else {
		t.Logf("100 kB there and back: %s", took)
	}
	other, _ := make3(t) // has the same addresses, on a switch of its own
	if _, err := ask(other.Host("a"), h[1].At(4000)); err == nil {
		t.Fatal("the host can be reached from another network")
	}
}

func TestCutsAreVerifiedAndUndone(t *testing.T) {
	n, h := make3(t)
	undo, err := h[0].Cut(t.Context(), n.Others(h[0]))
	if err != nil {
		t.Fatal(err)
	}
	if reaches(t, h[0], h[1], 0) || reaches(t, h[2], h[0], 0) || !reaches(t, h[1], h[2], 0) {
		t.Error("the cut host is reached, or the others are not")
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !reaches(t, h[0], h[1], 0) || !reaches(t, h[2], h[0], 0) {
		t.Error("the cut is not undone")
	}
}

func TestOneWayCut(t *testing.T) {
	_, h := make3(t)
	undo, err := h[0].CutOneWay(t.Context(), []*Host{h[1]})
	if err != nil {
		t.Fatal(err)
	}
	if reaches(t, h[0], h[1], 0) || !reaches(t, h[1], h[0], 0) || !reaches(t, h[0], h[2], 0) {
		t.Error("not only the way from a to b is cut")
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPortsCanBeCutAlone(t *testing.T) {
	_, h := make3(t)
	echo(t, h[1], 2379)
	echo(t, h[1], 4000)
	undo, err := h[0].Cut(t.Context(), []*Host{h[1]}, 2379, 2380)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(h[0], h[1].At(2379)); err == nil {
		t.Error("port 2379 answers although it is cut")
	}
	if _, err := ask(h[0], h[1].At(4000)); err != nil {
		t.Errorf("another port is cut too: %v", err)
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(h[0], h[1].At(2379)); err != nil {
		t.Errorf("after the undo: %v", err)
	}
}

func TestDelayAndLoss(t *testing.T) {
	n, h := make3(t)
	echo(t, h[1], 4000)
	undo := h[0].Degrade(n.Others(h[0]), Quality{Delay: 100 * time.Millisecond})
	if took, err := ask(h[0], h[1].At(4000)); err != nil || took < 400*time.Millisecond {
		t.Errorf("connect and one exchange over a way of 100 ms took %s (%v): two round trips are 400 ms", took, err)
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	undo = h[0].Degrade(n.Others(h[0]), Quality{Loss: 0.05})
	for range 3 { // TCP gets through
		if _, err := ask(h[0], h[1].At(4000)); err != nil {
			t.Logf("5 %% loss: %v", err)
		}
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "a fast way after the undo", func() bool {
		took, err := ask(h[0], h[1].At(4000))
		return err == nil && took < 400*time.Millisecond
	})
}

func TestProcessesOfAHost(t *testing.T) {
	n, h := make3(t)
	// The first ends at once and leaves an orphan in a session of its own.
	p, err := h[0].Start(exec.Command("sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exit 0"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.Gone
	sleeping := func(m Usage) bool { return m.Command == "sleep 1000" && m.Resident >= 100<<10 }
	await(t, "two orphans that sleep", func() bool {
		m := h[0].Memory()
		return len(m) == 2 && sleeping(m[0]) && sleeping(m[1])
	})
	if len(n.Host("b").PIDs()) != 0 {
		t.Error("another host claims the processes")
	}
	if err := h[0].Freeze(); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(h[0].PIDs(), func(pid int) bool { return state(pid) != 'T' }) {
		t.Error("a process of a frozen host runs")
	}
	if err := h[0].Thaw(); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(h[0].PIDs(), func(pid int) bool { return state(pid) == 'T' }) {
		t.Error("a process of a thawed host stands")
	}
	if err := h[0].KillAll(); err != nil {
		t.Fatal(err)
	}
	if left := h[0].PIDs(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for begun := time.Now(); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
