package pooled

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; nothing is concluded from its length.
const patience = 30 * time.Second

// place is a Cluster of one server, which tests move.
type place struct {
	mu      sync.Mutex
	address string
	term    *atomic.Bool // true: over
	changed chan struct{}
	why     string
	replica bool
	chairs  map[*chair]struct{}
	fails   atomic.Int32
	unfit   atomic.Pointer[map[string]bool]
}

type chair struct {
	place   *place
	conn    net.Conn
	address string
	over    *atomic.Bool
	cut     func()
}

func newPlace() *place {
	return &place{changed: make(chan struct{}), why: "nobody leads", chairs: map[*chair]struct{}{}}
}

// admit leads to a server from now on; what is at others is cut.
func (p *place) admit(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close("")
	p.address, p.term, p.why = address, &atomic.Bool{}, ""
	close(p.changed)
	p.changed = make(chan struct{})
}

// depose ends the admission and cuts its connections.
func (p *place) depose(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close(why)
}

func (p *place) close(why string) {
	if p.term != nil {
		p.term.Store(true)
	}
	p.address, p.term, p.why = "", nil, why
	for c := range p.chairs {
		go c.cut()
	}
}

func (p *place) Why() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

func (p *place) Unfit() map[string]bool {
	if u := p.unfit.Load(); u != nil {
		return *u
	}
	return nil
}

func (p *place) Connect(ctx context.Context, cut func()) (Seat, error) {
	for {
		p.mu.Lock()
		address, term, changed := p.address, p.term, p.changed
		p.mu.Unlock()
		if address == "" {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-changed:
			}
			continue
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		c := &chair{place: p, conn: conn, address: address, over: term, cut: cut}
		p.mu.Lock()
		p.chairs[c] = struct{}{}
		p.mu.Unlock()
		return c, nil
	}
}

func (c *chair) Conn() net.Conn { return c.conn }
func (c *chair) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
}
func (c *chair) Server() string                  { return c.address }
func (c *chair) Primary() bool                   { return !c.place.replica }
func (c *chair) Valid() bool                     { return !c.over.Load() }
func (c *chair) Failed(string)                   { c.place.fails.Add(1); time.Sleep(5 * time.Millisecond) }
func (c *chair) Doubted(context.Context, string) { time.Sleep(5 * time.Millisecond) }
func (c *chair) Leave(_, _ int64) {
	c.place.mu.Lock()
	defer c.place.mu.Unlock()
	delete(c.place.chairs, c)
}

// house is a door with a port.
type house struct {
	t       testing.TB
	door    *Door
	place   *place
	address string
	port    int
	log     *safeBuffer
	listen  net.Listener
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func defaults() config.Pool {
	return config.Pool{
		MaxClientConn: 5000, DefaultPoolSize: 4, QueryWaitTimeout: patience, ServerResetQuery: "DISCARD ALL", MaxPreparedStatements: 200,
		ClientLoginTimeout: patience, ServerLifetime: time.Hour, ServerLoginRetry: 50 * time.Millisecond,
		IgnoreStartupParameters: []string{"extra_float_digits"},
	}
}

// trusting lets everybody in without a password, and logs in to servers as the superuser.
type trusting struct{ password string }

func (t trusting) Secret(context.Context, string) (pgwire.Secret, error) {
	return pgwire.ParseSecret(t.password), nil
}

func open(t testing.TB, mode string, p *place, change func(*Options)) *house {
	t.Helper()
	h := &house{t: t, place: p, log: &safeBuffer{}}
	auth, err := pgwire.NewAuthenticator(pgwire.AuthOptions{Method: pgwire.Trust, Secrets: trusting{pgtest.SuperPassword}})
	pgtest.Must(t, err)
	o := Options{
		Cluster: p, Mode: mode,
		Terms: Terms{Pool: defaults(), Accept: pgwire.AcceptOptions{Auth: auth}, HoldTimeout: patience, ConnectTimeout: 5 * time.Second},
		Log:   slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&o)
	}
	h.door = New(o)
	h.listen, err = net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	h.address = h.listen.Addr().String()
	h.port = h.listen.Addr().(*net.TCPAddr).Port
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := h.listen.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { h.door.Serve(conn) })
		}
	})
	t.Cleanup(func() {
		h.listen.Close()
		h.door.Close()
		serving.Wait()
		if t.Failed() {
			lines := strings.Split(h.log.String(), "\n")
			t.Logf("end of the pooler's log:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	})
	return h
}

// pg starts a server, and returns its options and a place that leads to it.
func pg(t testing.TB) (postgres.Options, *postgres.Instance, *place) {
	t.Helper()
	o := pgtest.Options(t, "db1")
	i := pgtest.Primary(t, o)
	p := newPlace()
	p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	return o, i, p
}

func (h *house) url(more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable %s", h.port, more)
}

func (h *house) connect(more ...string) *pgx.Conn {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, h.url(strings.Join(more, " ")))
	pgtest.Must(h.t, err)
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

// atServer is a session of the server itself, past the pooler.
func atServer(t testing.TB, o postgres.Options) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), pgtest.ConnString(o, "postgres"))
	pgtest.Must(t, err)
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func exec(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// text is the first column of the first row, by a simple query.
func text(t testing.TB, c *pgx.Conn, sql string) string {
	t.Helper()
	got, err := tryText(c, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func tryText(c *pgx.Conn, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := c.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(all) == 0 || len(all[len(all)-1].Rows) == 0 {
		return "", errors.New("no row")
	}
	return string(all[len(all)-1].Rows[0][0]), nil
}

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// raw is a client that speaks the protocol by hand.
type raw struct {
	t testing.TB
	net.Conn
}

// knock begins to log in, and does not wait for the answer.
func (h *house) knock() net.Conn {
	conn, err := net.Dial("tcp", h.address)
	pgtest.Must(h.t, err)
	h.t.Cleanup(func() { conn.Close() })
	_, err = conn.Write([]byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"))
	pgtest.Must(h.t, err)
	return conn
}

func (h *house) raw() *raw {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.address)
	pgtest.Must(h.t, err)
	return h.rawOn(conn)
}

// directly is a client that begins with TLS.
func (h *house) directly() *raw {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.address)
	pgtest.Must(h.t, err)
	return h.rawOn(tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}}))
}

func (h *house) rawOn(conn net.Conn) *raw {
	h.t.Helper()
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	r := &raw{h.t, conn}
	body := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	r.send(string([]byte{0, 0, 0, byte(len(body) + 4)}) + body)
	r.until('Z')
	return r
}

func (r *raw) send(s string) {
	r.t.Helper()
	if _, err := io.WriteString(r, s); err != nil {
		r.t.Fatal(err)
	}
}

// next reads one message.
func (r *raw) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, int(head[1])<<24|int(head[2])<<16|int(head[3])<<8|int(head[4])-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// until reads up to a message of that type, and returns the types of all, and the body of the last.
func (r *raw) until(last byte) (kinds string, body []byte) {
	r.t.Helper()
	kinds, body, err := r.read(last)
	if err != nil {
		r.t.Fatalf("after %q: %v", kinds, err)
	}
	return kinds, body
}

// read is until for other goroutines than the test's own.
func (r *raw) read(last byte) (kinds string, body []byte, err error) {
	for {
		kind, body, err := r.next()
		if err != nil {
			return kinds, nil, err
		}
		kinds += string(kind)
		if kind == last {
			return kinds, body, nil
		}
	}
}

// reply reads until the nth ReadyForQuery, or until the limit, and returns the replies in words.
func (r *raw) reply(n int, limit time.Duration) string {
	r.SetReadDeadline(time.Now().Add(limit))
	var b strings.Builder
	for n > 0 {
		k, body, err := r.next()
		if err != nil {
			fmt.Fprintf(&b, "<%v>", err)
			break
		}
		fmt.Fprintf(&b, "%c(%.80q) ", k, body)
		if k == 'Z' {
			n--
		}
	}
	return b.String()
}
