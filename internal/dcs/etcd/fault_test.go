package etcd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/dcstest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
)

func lead(t *testing.T, c *Client, name string) dcs.Holder {
	t.Helper()
	l, err := c.Grant(t.Context(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Acquire(t.Context(), dcs.Claim{Name: name, Lease: l.ID, Term: cluster.Term{Number: 1, Holder: name, Nonce: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// nextUpdate waits for an update that ok accepts.
func nextUpdate(t *testing.T, ch <-chan dcs.Update, what string, ok func(dcs.Update) bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case u := <-ch:
			if ok(u) {
				return
			}
		case <-limit:
			t.Fatalf("no update with %s within 20 s", what)
		}
	}
}

func TestFrozenEtcdNeverRenews(t *testing.T) {
	e := dcstest.Start(t)
	c := openClient(t, Options{Endpoints: []string{e.Endpoint}, RetryTimeout: 2 * time.Second})
	h := lead(t, c, "db1")
	watch := c.Watch(t.Context())
	nextUpdate(t, watch, "the leader", func(u dcs.Update) bool { return u.Err == nil && u.Snapshot.Leader != nil })
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	e.Freeze(t)
	began := time.Now()
	_, err := c.Renew(t.Context(), h)
	if took := time.Since(began); err == nil || took > 6*time.Second {
		t.Errorf("renewal on a frozen etcd: %v after %s, want an error after about 2 s", err, took)
	}
	if errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrLeaseGone) {
		t.Errorf("a frozen etcd says nothing about leadership, yet the renewal says %v", err)
	}
	nextUpdate(t, watch, "the loss of the connection", func(u dcs.Update) bool { return u.Err != nil })
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a frozen etcd answered a ping")
	} else {
		t.Log(err)
	}
	e.Thaw(t)
	nextUpdate(t, watch, "a snapshot after the thaw", func(u dcs.Update) bool { return u.Err == nil && u.Snapshot.Leader != nil })
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Errorf("renewal after the thaw: %v", err)
	}
}

// relay is a TCP relay before an etcd that can swallow all that etcd answers, or delay it.
type relay struct {
	address string
	mu      sync.Mutex
	mute    bool
	delay   time.Duration
	conns   []net.Conn
}

func startRelay(t *testing.T, endpoint string) *relay {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: ln.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", u.Host)
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			running.Go(func() { _, _ = io.Copy(out, in) })
			running.Go(func() { r.answers(in, out) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		r.cut()
		running.Wait()
	})
	return r
}

func (r *relay) answers(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		mute, delay := r.mute, r.delay
		r.mu.Unlock()
		time.Sleep(delay)
		if !mute {
			_, _ = to.Write(buf[:n])
		}
	}
}

func (r *relay) set(mute bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = mute
}

func (r *relay) slow(delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = delay
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// prefer waits until a node answers, so that the next call goes there on an open connection.
func (c *Client) prefer(t *testing.T, n *node) {
	t.Helper()
	for t.Context().Err() == nil {
		c.calls.good(n)
		if _, err := c.Snapshot(t.Context()); err == nil && c.calls.order()[0] == n {
			return
		}
	}
}

// An answer that is lost leaves the outcome unknown: the write is repeated elsewhere and recognised as our own.
func TestLostAnswersAreReadBack(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	r := startRelay(t, endpoint)
	c := openClient(t, Options{Endpoints: []string{r.address, endpoint}})
	l, err := c.Grant(t.Context(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// losing runs a write whose first answer is lost.
	losing := func(what string, write func() error) {
		t.Helper()
		c.prefer(t, c.calls.nodes[0])
		r.set(true)
		if err := write(); err != nil {
			t.Errorf("%s whose first answer was lost: %v", what, err)
		}
		r.set(false)
		r.cut()
	}
	var h dcs.Holder
	losing("acquire", func() (err error) {
		h, err = c.Acquire(t.Context(), dcs.Claim{Name: "db1", Lease: l.ID, Term: cluster.Term{Number: 1, Holder: "db1", Nonce: "n1"}})
		return err
	})
	var syncRev int64
	losing("write of term and sync", func() (err error) {
		h, syncRev, err = c.Write(t.Context(), h, dcs.Changes{
			Term: &cluster.Term{Number: 1, Holder: "db1", Nonce: "n1", State: cluster.TermPromoted},
			Sync: &dcs.SyncChange{Sync: cluster.Sync{Leader: "db1", Standbys: []string{"db2"}}},
		})
		return err
	})
	s, err := c.Snapshot(t.Context())
	if err != nil || s.Leader.ModRev != h.LeaderRev || s.Term.ModRev != h.TermRev || s.Sync.ModRev != syncRev {
		t.Errorf("holder %+v, sync %d; store: %+v %+v %+v %v", h, syncRev, s.Leader, s.Term, s.Sync, err)
	}
	losing("release", func() error { return c.Release(t.Context(), h, &cluster.Status{Optime: 7}) })
	c.prefer(t, c.calls.nodes[0])
	r.set(true)
	if err := c.BeginInitialize(t.Context()); err == nil || errors.Is(err, dcs.ErrConflict) {
		t.Errorf("initialize whose answer was lost cannot be told from another's: got %v", err)
	}
}

func TestConnectionLossIsUnknown(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	r := startRelay(t, endpoint)
	c := openClient(t, Options{Endpoints: []string{r.address}, RetryTimeout: 2 * time.Second})
	h := lead(t, c, "db1")
	watch := c.Watch(t.Context())
	nextUpdate(t, watch, "the leader", func(u dcs.Update) bool { return u.Err == nil && u.Snapshot.Leader != nil })
	r.set(true)
	r.cut()
	began := time.Now()
	nextUpdate(t, watch, "the cut connection", func(u dcs.Update) bool { return u.Err != nil })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a cut connection was told after %s", took)
	}
	_, err := c.Renew(t.Context(), h)
	var unreachable *Unreachable
	if !errors.As(err, &unreachable) || len(unreachable.Reasons) != 1 {
		t.Errorf("renewal without answers: %v", err)
	}
	if _, _, err := c.Write(t.Context(), h, dcs.Changes{Status: &cluster.Status{Optime: 1}}); !errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("a write without answers: %v", err)
	}
	r.set(false)
	r.cut()
	nextUpdate(t, watch, "a new snapshot", func(u dcs.Update) bool { return u.Err == nil && u.Snapshot.Leader != nil })
}

// TestSlowStoreProvesLeadership: the two answers of a renewal take longer than a tenth of the lease.
func TestSlowStoreProvesLeadership(t *testing.T) {
	r := startRelay(t, dcstest.StartEtcd(t))
	c := openClient(t, Options{Endpoints: []string{r.address}})
	l, err := c.Grant(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Acquire(t.Context(), dcs.Claim{Name: "db1", Lease: l.ID, Term: cluster.Term{Number: 1, Holder: "db1", Nonce: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	r.slow(700 * time.Millisecond)
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Error(err)
	}
}

// TestRefusalGivesNoOtherTryMoreTime: one endpoint refuses and the next says nothing; the third has to have its turn.
func TestRefusalGivesNoOtherTryMoreTime(t *testing.T) {
	real := dcstest.StartEtcd(t)
	silent := startRelay(t, real)
	c := openClient(t, Options{Endpoints: []string{dcstest.FreeAddress(t), silent.address, real}})
	l, err := c.Grant(t.Context(), time.Minute) // a try is given 6 s
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Acquire(t.Context(), dcs.Claim{Name: "db1", Lease: l.ID, Term: cluster.Term{Number: 1, Holder: "db1", Nonce: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	silent.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
	defer cancel()
	if _, err := c.Renew(ctx, h); err != nil {
		t.Error(err)
	}
}

func TestWatchSurvivesCompaction(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	c := openClient(t, Options{Endpoints: []string{endpoint}})
	lead(t, c, "db1")
	s, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := clientv3.NewFromURL(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	for range 5 {
		if _, err := raw.Put(t.Context(), "/elsewhere", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := raw.Compact(t.Context(), s.Revision+4); err != nil {
		t.Fatal(err)
	}
	l, err := c.calls.order()[0].open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := l.watch.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	heard, done := make(chan heardFrom), make(chan struct{})
	go func() { defer close(done); listen(ctx, stream, heard) }()
	im := image{header: &pb.ResponseHeader{Revision: s.Revision}, keys: keys{}}
	if err := c.follow(ctx, stream, heard, im, func(dcs.Update) {}); !errors.Is(err, errCompacted) {
		t.Errorf("a watch from a compacted revision ends with %v; it must begin anew", err)
	}
	cancel()
	<-done
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	before := goleak.IgnoreCurrent()
	c, err := Open(Options{Endpoints: []string{endpoint}, Scope: "close", Discover: true})
	if err != nil {
		t.Fatal(err)
	}
	lead(t, c, "db1")
	watch := c.Watch(context.Background())
	nextUpdate(t, watch, "the leader", func(u dcs.Update) bool { return u.Err == nil && u.Snapshot.Leader != nil })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for range watch {
	}
	if _, err := c.Snapshot(t.Context()); err == nil {
		t.Error("a closed client answers")
	}
	goleak.VerifyNone(t, before)
}

// TestWatcherThatLeavesEarlyEnds: it leaves while its stream is being opened; the listener is gone without a word, and
// nobody will say why the stream failed.
func TestWatcherThatLeavesEarlyEnds(t *testing.T) {
	c := openClient(t, Options{Endpoints: []string{dcstest.StartEtcd(t)}})
	l, err := c.calls.order()[0].open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := l.watch.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, _ = stream.Recv() // waits until the stream has seen the end of ctx: whatever is sent now fails
	ended := make(chan error, 1)
	go func() {
		ended <- c.follow(ctx, stream, make(chan heardFrom), image{header: &pb.ResponseHeader{}}, func(dcs.Update) {})
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a watch that could not be asked for ended without an error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a watch that was left goes on for ever, and Close would wait for it")
	}
}

func TestStaleAnswersArePassedOver(t *testing.T) {
	f := newFreshness()
	header := func(cluster, term uint64) *pb.ResponseHeader {
		return &pb.ResponseHeader{ClusterId: cluster, RaftTerm: term}
	}
	for _, step := range []struct {
		cluster, term uint64
		stale         bool
	}{{1, 2, false}, {1, 3, false}, {1, 2, true}, {2, 1, false}, {1, 3, false}, {1, 4, false}, {1, 3, true}} {
		if err := f.see(header(step.cluster, step.term)); errors.Is(err, errStale) != step.stale {
			t.Errorf("cluster %d term %d: %v, want stale %v", step.cluster, step.term, err, step.stale)
		}
	}
}

// What a deposed etcd leader answers must not count: the keepalive of another raft term than the transactions around it.
func TestRenewalNeedsOneRaftTerm(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	c := openClient(t, Options{Endpoints: []string{endpoint}})
	h := lead(t, c, "db1")
	l, err := c.renewals.order()[0].open()
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []epoch{{s.ClusterID, s.RaftTerm - 1}, {s.ClusterID + 1, s.RaftTerm}} {
		c.proof.set(before)
		if r, err := c.renewOn(t.Context(), l, h); err == nil {
			t.Errorf("proof %+v and an answer of %x/%d gave the renewal %+v", before, s.ClusterID, s.RaftTerm, r)
		}
		if _, err := c.renewOn(t.Context(), l, h); err != nil {
			t.Errorf("repeated at once: %v", err)
		}
	}
}
