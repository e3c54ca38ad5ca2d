package pooled

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/pool"
)

// sink is a connection on which everything can be written, and nothing comes.
type sink struct{ bytes.Buffer }

func (*sink) Read([]byte) (int, error)         { return 0, io.EOF }
func (*sink) Close() error                     { return nil }
func (*sink) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*sink) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*sink) SetDeadline(time.Time) error      { return nil }
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

// pair links a client to a server, in mode transaction, without a network.
func pair() (*client, *server) {
	d := &Door{
		opt:     Options{Mode: Transaction, Log: slog.New(slog.DiscardHandler)},
		tracked: track(nil), book: pool.New[*server, *client](), lanes: map[pool.Key]*lane{}, clients: map[uint32]*client{},
		servers: map[*server]struct{}{}, prefix: "hv_",
	}
	key := pool.Key{Database: "d", User: "u"}
	set := defaults()
	l := &lane{key: key, pool: d.book.Pool(key, accounts(&set)), tracks: true}
	l.set.Store(&set)
	c := newClient(d, &pgwire.Client{Conn: &sink{}})
	s := newServer(d, l, &chair{}, &pgwire.Server{Conn: &sink{}})
	c.lane, c.params = l, s.params
	s.client, s.fresh = c, true
	c.server = s
	return c, s
}

// FuzzClientStream has a client send anything: it is passed on, refused or waited for, and the books of what is owed stay in
// order.
func FuzzClientStream(f *testing.F) {
	parse := frame.Append(nil, 'P', "s\x00select 1\x00\x00\x00")
	bind := frame.Append(nil, 'B', "\x00s\x00\x00\x00\x00\x00\x00\x00")
	f.Add([]byte(query("select 1")))
	f.Add(bytes.Join([][]byte{parse, bind, frame.Append(nil, 'D', "P\x00"), frame.Append(nil, 'E', "\x00\x00\x00\x00\x00"), frame.Append(nil, 'S')}, nil))
	f.Add(append(parse, frame.Append(nil, 'C', "Ss\x00")...))
	f.Add([]byte("X\x00\x00\x00\x04"))
	f.Add([]byte("d\x00\x00\x00\x05xc\x00\x00\x00\x04"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, s := pair()
		for rest := said; len(rest) > 0 && s.client == c; {
			s.mu.Lock()
			p := parcel{b: rest}
			kind, size := frame.Next(rest)
			if size == 0 || frame.FromClient(kind, size) != nil || kind == 'X' || kind == 'p' || size > len(rest) {
				s.mu.Unlock()
				return
			}
			want, err := c.enter(s, &p, 0, kind, size)
			out := p.close(size)
			edge := s.x.Edge() && s.x.Owes()
			s.mu.Unlock()
			if edge {
				t.Fatal("at an edge with something owed")
			}
			if err != nil || want != 0 {
				return
			}
			sane(t, out)
			p.release(&c.door.buffers)
			rest = rest[size:]
		}
	})
}

// sane checks that what is sent to a server is whole messages.
func sane(t *testing.T, b []byte) {
	t.Helper()
	for len(b) > 0 {
		kind, size := frame.Next(b)
		if size == 0 || size > len(b) || frame.FromClient(kind, size) != nil {
			t.Fatalf("no message: %q", b)
		}
		b = b[size:]
	}
}

// FuzzServerStream has a server say anything to a client that has asked for something: no more than was said reaches the
// client, apart from errors of our own, and only whole messages are taken for such.
func FuzzServerStream(f *testing.F) {
	done := append(frame.Append(nil, 'C', "SELECT 1\x00"), frame.Append(nil, 'Z', "I")...)
	f.Add(done)
	f.Add(append(frame.Append(nil, 'E', "SERROR\x00VERROR\x00C42601\x00Mm\x00\x00"), frame.Append(nil, 'Z', "T")...))
	f.Add(append(frame.Append(nil, 'S', "TimeZone\x00UTC\x00"), done...))
	f.Add(frame.Append(nil, 'E', "SFATAL\x00VFATAL\x00C57P01\x00Mm\x00\x00"))
	f.Add([]byte("D\x7f\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, s := pair()
		c.server = nil
		s.x.Query('Q')
		b := bytes.Clone(said)
		s.mu.Lock()
		used, kept, _, _ := s.sort(b)
		s.mu.Unlock()
		if used > len(said) || kept > used {
			t.Errorf("of %d bytes %d are used and %d passed on", len(said), used, kept)
		}
	})
}

// FuzzOptions reads the startup parameter options.
func FuzzOptions(f *testing.F) {
	f.Add(`-c geqo=off --statement-timeout=5min`)
	f.Add(`-cTimeZone=Europe/Berlin\ x`)
	f.Add(`-c`)
	f.Fuzz(func(t *testing.T, text string) {
		given, refused := options(text)
		if refused != nil {
			return
		}
		for _, p := range given {
			if p.Name == "" {
				t.Errorf("%q: a parameter without a name", text)
			}
		}
	})
}

// FuzzAsk reads what a server answers to a question of our own.
func FuzzAsk(f *testing.F) {
	f.Add(append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x01f"), frame.Append(nil, 'Z', "I")...))
	f.Add(append(frame.Append(nil, 'D', "\x00\x01\xff\xff\xff\xff"), frame.Append(nil, 'Z', "I")...))
	f.Fuzz(func(_ *testing.T, said []byte) {
		_, _ = ask(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard}, "SELECT 1")
	})
}

// FuzzWords reads bodies of server messages for what they mean to a pooler.
func FuzzWords(f *testing.F) {
	f.Add([]byte("SFATAL\x00VFATAL\x00C57P01\x00Mm\x00\x00"))
	f.Add([]byte("TimeZone\x00UTC\x00"))
	f.Add([]byte("SELECT 1\x00"))
	f.Fuzz(func(_ *testing.T, body []byte) {
		isFatal(body)
		outdated(body)
		column(body)
		_, s := pair()
		s.parameter(body)
		s.tag(body, entry{}, false)
		for _, kind := range []byte("PBDC") {
			nameIn(kind, body)
		}
	})
}

// FuzzRecords has records of TLS arrive in two pieces: what is known of the last one does not depend on where they are cut.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("S\x17\x03\x03\x00\x02ab\x16\x03\x03"), uint(5))
	f.Add([]byte("\x17\x03\x03\x00\x00\x17\x03\x03\xff\xff"), uint(1))
	f.Fuzz(func(t *testing.T, said []byte, cut uint) {
		var whole, pieces tap
		whole.follow(said)
		cut %= uint(len(said)) + 1
		pieces.follow(said[:cut])
		pieces.follow(said[cut:])
		if whole.left != pieces.left || !bytes.Equal(whole.head, pieces.head) {
			t.Errorf("cut at %d: %d bytes to come behind %q, and not %d behind %q", cut, pieces.left, pieces.head, whole.left, whole.head)
		}
		if whole.left < 0 || len(whole.head) >= recordHead || whole.left > 0 && len(whole.head) > 0 {
			t.Errorf("%d bytes to come behind %q", whole.left, whole.head)
		}
	})
}
