package pooled

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// worker is one client that knows what it has asked, and wants that and nothing else as an answer.
type worker struct {
	h    *house
	id   int
	n    int
	rand *rand.Rand
	conn *pgx.Conn
	past []string
}

// token is content that no other question has.
func (w *worker) token() string {
	w.n++
	return fmt.Sprintf("<%s%d:%d>", w.h.door.opt.Mode[:1], w.id, w.n)
}

func (w *worker) dial(ctx context.Context) error {
	var err error
	w.conn, err = pgx.Connect(ctx, w.h.url(fmt.Sprintf("application_name=worker%d", w.id)))
	return err
}

func same(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s: an answer of %d bytes, %.60q, to a question for %.60q", what, len(got), got, want)
	}
	return nil
}

// deeds are what a worker does. Each gives an error if something came that was not asked for.
func (w *worker) deeds() []func(context.Context) error {
	return []func(context.Context) error{w.simple, w.simple, w.prepared, w.prepared, w.pipeline, w.large, w.fail, w.transaction,
		w.copyOut, w.copyIn, w.copyInFails, w.application, w.cancel, w.vanish, w.vanishRaw, w.half, w.rawPipeline}
}

func (w *worker) simple(ctx context.Context) error {
	k := w.token()
	rows, err := w.conn.PgConn().Exec(ctx, "SELECT '"+k+"'; SELECT '"+k+"'").ReadAll()
	if err != nil {
		return err
	}
	return errors.Join(same("simple", string(rows[0].Rows[0][0]), k), same("simple", string(rows[1].Rows[0][0]), k))
}

// prepared uses one of a few texts under names that all workers use, each for another text.
func (w *worker) prepared(ctx context.Context) error {
	k, kind := w.token(), w.rand.IntN(5)
	var got string
	err := w.conn.QueryRow(ctx, fmt.Sprintf("SELECT $1::text || '%d/%d'", kind, w.id%3), k).Scan(&got)
	if err != nil {
		return err
	}
	return same("prepared", got, fmt.Sprintf("%s%d/%d", k, kind, w.id%3))
}

func (w *worker) pipeline(ctx context.Context) error {
	b := &pgx.Batch{}
	var want []string
	for range 1 + w.rand.IntN(8) {
		k := w.token()
		want = append(want, k)
		b.Queue(fmt.Sprintf("SELECT $1::text, %d", w.rand.IntN(4)), k)
	}
	r := w.conn.SendBatch(ctx, b)
	defer r.Close()
	for _, k := range want {
		var got string
		var n int
		if err := r.QueryRow().Scan(&got, &n); err != nil {
			return err
		}
		if err := same("pipeline", got, k); err != nil {
			return err
		}
	}
	return r.Close()
}

func (w *worker) large(ctx context.Context) error {
	k, n := w.token(), 1+w.rand.IntN(40000)
	rows, err := w.conn.Query(ctx, "SELECT repeat($1::text, $2::int) FROM generate_series(1, 5)", k, n)
	if err != nil {
		return err
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		var got string
		if err := rows.Scan(&got); err != nil {
			return err
		}
		if got != strings.Repeat(k, n) {
			return same("large", got, k)
		}
		count++
	}
	if rows.Err() == nil && count != 5 {
		return fmt.Errorf("large: %d rows", count)
	}
	return rows.Err()
}

func (w *worker) fail(ctx context.Context) error {
	k := w.token()
	_, err := w.conn.Exec(ctx, "SELECT ('"+k+"'||$1)::int", "x")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "22P02" || !strings.Contains(e.Message, k) {
		return fmt.Errorf("fail: %w, want an error about %s", err, k)
	}
	return nil
}

func (w *worker) transaction(ctx context.Context) error {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	k := w.token()
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1, $2)", w.id, k); err != nil {
		return err
	}
	var got string
	if err := tx.QueryRow(ctx, "SELECT max(v) FROM t WHERE id = $1 AND v = $2", w.id, k).Scan(&got); err != nil {
		return err
	}
	if err := same("transaction", got, k); err != nil {
		return err
	}
	if w.rand.IntN(2) == 0 {
		return tx.Commit(ctx)
	}
	return tx.Rollback(ctx)
}

func (w *worker) copyOut(ctx context.Context) error {
	k, n := w.token(), w.rand.IntN(5000)
	var out bytes.Buffer
	_, err := w.conn.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT '%s' FROM generate_series(1, %d)) TO STDOUT", k, n))
	if err != nil {
		return err
	}
	return same("copy out", out.String(), strings.Repeat(k+"\n", n))
}

func (w *worker) copyIn(ctx context.Context) error {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	k, n := w.token(), w.rand.IntN(5000)
	tag, err := w.conn.PgConn().CopyFrom(ctx, strings.NewReader(strings.Repeat(fmt.Sprintf("%d\t%s\n", w.id, k), n)), "COPY t FROM STDIN")
	if err != nil {
		return err
	}
	var got int
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM t WHERE id = $1 AND v = $2", w.id, k).Scan(&got); err != nil {
		return err
	}
	return same("copy in", fmt.Sprint(got, tag.RowsAffected()), fmt.Sprint(n, n))
}

// copyInFails sends much more data after what makes it fail.
func (w *worker) copyInFails(ctx context.Context) error {
	k := w.token()
	data := fmt.Sprintf("%d\tgood\nbad%s\tx\n", w.id, k) + strings.Repeat("1\tmore\n", w.rand.IntN(50000))
	_, err := w.conn.PgConn().CopyFrom(ctx, strings.NewReader(data), "COPY t FROM STDIN")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "22P02" || !strings.Contains(e.Message, k) {
		return fmt.Errorf("copy in fails: %w, want an error about %s", err, k)
	}
	return nil
}

func (w *worker) application(ctx context.Context) error {
	var got string
	if err := w.conn.QueryRow(ctx, "SELECT current_setting('application_name')").Scan(&got); err != nil {
		return err
	}
	return same("application_name", got, fmt.Sprintf("worker%d", w.id))
}

// cancel has the statement cancelled by a request beside it, as drivers do at a timeout. A request that comes too late for
// the statement is over before the next one: else it would be right to cancel that.
func (w *worker) cancel(ctx context.Context) error {
	late, cancel := context.WithTimeout(ctx, time.Duration(w.rand.IntN(20))*time.Millisecond)
	defer cancel()
	over := make(chan struct{})
	stop := context.AfterFunc(late, func() {
		defer close(over)
		w.conn.PgConn().CancelRequest(ctx)
	})
	defer func() {
		if !stop() {
			<-over
		}
	}()
	k := w.token()
	rows, err := w.conn.PgConn().Exec(ctx, fmt.Sprintf("SELECT '%s' FROM pg_sleep(%f)", k, 0.03*w.rand.Float64())).ReadAll()
	if code(err) == "57014" {
		return nil
	}
	if err != nil {
		return err
	}
	return same("cancel", string(rows[0].Rows[0][0]), k)
}

// vanish leaves in the middle of an answer.
func (w *worker) vanish(ctx context.Context) error {
	rows, err := w.conn.Query(ctx, "SELECT repeat($1::text, 10000) FROM generate_series(1, 200)", w.token())
	if err == nil && w.rand.IntN(2) == 0 {
		rows.Next()
	}
	w.conn.PgConn().Conn().Close()
	return w.dial(ctx)
}

func (w *worker) raw() (*raw, error) {
	conn, err := net.Dial("tcp", w.h.address)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	r := &raw{w.h.t, conn}
	body := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	io.WriteString(r, string([]byte{0, 0, 0, byte(len(body) + 4)})+body)
	for {
		kind, _, err := r.next()
		if err != nil {
			conn.Close()
			return nil, err
		}
		if kind == 'Z' {
			return r, nil
		}
	}
}

// vanishRaw leaves after having asked, without waiting.
func (w *worker) vanishRaw(context.Context) error {
	r, err := w.raw()
	if err != nil {
		return err
	}
	k := w.token()
	sql := []string{"SELECT '" + k + "'", "BEGIN; SELECT '" + k + "'", "SELECT '" + k + "' FROM generate_series(1, 100000)", "COPY t FROM STDIN", "INSERT INTO t VALUES (-1, '" + k + "')"}[w.rand.IntN(5)]
	r.Write(frame.Append(nil, 'Q', sql, "\x00"))
	if w.rand.IntN(2) == 0 {
		time.Sleep(time.Duration(w.rand.IntN(3)) * time.Millisecond)
	}
	return r.Close()
}

// half sends a part of a message and leaves.
func (w *worker) half(context.Context) error {
	r, err := w.raw()
	if err != nil {
		return err
	}
	defer r.Close()
	m := frame.Append(nil, 'Q', "SELECT '", strings.Repeat(w.token(), w.rand.IntN(20000)), "'\x00")
	if w.rand.IntN(2) == 0 {
		m = append(frame.Append(frame.Append(nil, 'P', "s\x00SELECT 1\x00\x00\x00"), 'B', "\x00s\x00\x00\x00\x00\x00\x00\x00"), m...)
	}
	_, err = r.Write(m[:1+w.rand.IntN(len(m)-1)])
	return err
}

// rawPipeline sends several batches at once, some of which fail, under names that others use too.
func (w *worker) rawPipeline(context.Context) error {
	r, err := w.raw()
	if err != nil {
		return err
	}
	defer r.Close()
	var m []byte
	var want []string
	for i := range 2 + w.rand.IntN(5) {
		k := w.token()
		bad := w.rand.IntN(3) == 0
		sql := "SELECT '" + k + "'"
		if bad {
			sql = "SELECT '" + k + "'::int"
		}
		name := ""
		if w.rand.IntN(2) == 0 {
			name = fmt.Sprintf("s%d", i)
		}
		m = frame.Append(m, 'P', name, "\x00", sql, "\x00\x00\x00")
		m = frame.Append(m, 'B', "\x00", name, "\x00\x00\x00\x00\x00\x00\x00")
		m = frame.Append(m, 'E', "\x00\x00\x00\x00\x00")
		m = frame.Append(m, 'S')
		if bad {
			want = append(want, "E"+k)
		} else {
			want = append(want, "D"+k)
		}
	}
	go r.Write(m)
	for _, k := range want {
		var got string
		for {
			kind, body, err := r.next()
			if err != nil {
				return err
			}
			if kind == 'D' || kind == 'E' {
				got += string(kind) + string(body)
			}
			if kind == 'Z' {
				break
			}
		}
		if got == "" || got[0] != k[0] || !strings.Contains(got, k[1:]) || strings.Count(got, "<") != 1 {
			return fmt.Errorf("raw pipeline: %q, want %s", got, k)
		}
	}
	return nil
}

// TestEveryAnswerIsTheAskersOwn has many clients do all they can at once on few servers.
func TestEveryAnswerIsTheAskersOwn(t *testing.T) {
	o, _, p := pg(t)
	direct := atServer(t, o)
	exec(t, direct, "CREATE TABLE t (id int, v text)")
	for _, mode := range []string{Transaction, Session} {
		t.Run(mode, func(t *testing.T) {
			h := open(t, mode, p, func(o *Options) {
				o.Pool.DefaultPoolSize, o.Pool.MaxPreparedStatements = 4, 12
				if mode == Session {
					o.Pool.DefaultPoolSize = 20
				}
			})
			h.crowd(16, 6*time.Second)
		})
	}
}

// crowd lets workers work.
func (h *house) crowd(workers int, long time.Duration) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long+patience)
	defer cancel()
	until := time.Now().Add(long)
	var all sync.WaitGroup
	var done atomic.Int64
	for id := range workers {
		all.Go(func() {
			w := &worker{h: h, id: id, rand: rand.New(rand.NewPCG(uint64(id), uint64(time.Now().UnixNano())))}
			if err := w.dial(ctx); err != nil {
				h.t.Error(err)
				return
			}
			defer func() { w.conn.Close(ctx) }()
			deeds := w.deeds()
			for time.Now().Before(until) && !h.t.Failed() {
				deed := deeds[w.rand.IntN(len(deeds))]
				name := runtime.FuncForPC(reflect.ValueOf(deed).Pointer()).Name()
				w.past = append(w.past, name[strings.LastIndexByte(name, '.')+1:])
				if err := deed(ctx); err != nil {
					h.t.Errorf("worker %d: %v; it did %v", id, err, w.past[max(0, len(w.past)-5):])
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	h.t.Logf("%d deeds", done.Load())
	pgtest.Eventually(h.t, "no server is lent", func() error {
		for _, s := range h.door.Snapshot() {
			if s.ServersActive+s.Clients > 0 {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
}
