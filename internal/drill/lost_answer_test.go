package drill

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// thief forwards connections to a server until a client sends marker; it lets the server do what was asked, keeps the
// answer for itself, all but its first bytes, and ends the connection.
type thief struct {
	server string
	marker []byte
	show   int  // bytes of the answer that the client gets
	reset  bool // end with a reset, as a proxy does that cuts a session
	conns  sync.WaitGroup
}

func (f *thief) listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	f.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Go(func() { f.forward(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.conns.Wait()
	})
	return l
}

func (f *thief) forward(client *net.TCPConn) {
	defer client.Close()
	server, err := net.Dial("tcp", f.server)
	if err != nil {
		return
	}
	defer server.Close()
	stolen := make(chan struct{})
	var answers sync.WaitGroup
	answers.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := server.Read(buf)
			if err != nil {
				client.Close()
				return
			}
			select {
			case <-stolen:
				_, _ = client.Write(buf[:min(n, f.show)])
				if f.reset {
					_ = client.SetLinger(0)
				}
				client.Close()
				return
			default:
				_, _ = client.Write(buf[:n])
			}
		}
	})
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			break
		}
		if bytes.Contains(buf[:n], f.marker) {
			close(stolen)
			_, _ = server.Write(buf[:n])
			_, _ = io.Copy(io.Discard, client) // until the other goroutine has closed it
			break
		}
		_, _ = server.Write(buf[:n])
	}
	server.Close()
	answers.Wait()
}

// TestLostAnswerIsUnknown: the commit is done, the connection breaks before the answer is whole. However it breaks, and
// whatever the driver says, that is no proof that nothing happened.
func TestLostAnswerIsUnknown(t *testing.T) {
	o := pgtest.Options(t, "a")
	pgtest.Primary(t, o)
	direct := pgtest.ConnString(o, "postgres")
	for _, c := range []struct {
		marker string
		mix    Mix
		show   int
		reset  bool
	}{
		{"commit", Mix{Transfers: 2}, 0, false},
		{"commit", Mix{Transfers: 2}, 0, true},
		{"commit", Mix{Transfers: 2}, 7, false},
		{"commit", Mix{Transfers: 2}, 7, true},
		{"INSERT INTO", Mix{Ledger: 2}, 0, false},
		{"INSERT INTO", Mix{Ledger: 2}, 0, true},
		{"INSERT INTO", Mix{Ledger: 2}, 40, false},
		{"INSERT INTO", Mix{Ledger: 2}, 40, true},
		{"commit", Mix{Lists: 2, Registers: 2}, 0, true},
	} {
		t.Run(fmt.Sprintf("%s after %d bytes reset %v", c.marker, c.show, c.reset), func(t *testing.T) {
			f := &thief{server: fmt.Sprintf("127.0.0.1:%d", o.Port), marker: []byte(c.marker), show: c.show, reset: c.reset}
			to := o
			to.Port = f.listen(t).Addr().(*net.TCPAddr).Port
			ctx := pgtest.Context(t)
			load, err := Begin(ctx, Load{
				Routes:  map[string]string{"a direct one that makes the tables": direct, "proxy": pgtest.ConnString(to, "postgres")},
				Clients: c.mix, Pause: time.Millisecond, Timeout: 20 * time.Second,
			})
			pgtest.Must(t, err)
			pgtest.Eventually(t, "answers are lost", func() error {
				load.mu.Lock()
				defer load.mu.Unlock()
				n := 0
				for _, o := range load.history.Operations {
					if o.Outcome == check.Unknown {
						n++
					}
				}
				if n < 8 {
					return fmt.Errorf("%d unknown outcomes", n)
				}
				return nil
			})
			history := load.Stop()
			pgtest.Must(t, load.Final(ctx, direct))
			if r := check.Judge(history); r.Verdict != check.Pass {
				t.Errorf("judged:\n%s", r.Text())
			}
		})
	}
}
