package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/dcs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watch asks for a sign of life every askEvery and is lost after silentFor without any. Progress requests are
// answered by etcd 3.4 and newer.
const (
	askEvery  = time.Second
	silentFor = 2500 * time.Millisecond
)

// Watch delivers a snapshot, then one after each change, and an Update with Err whenever the connection is lost. Each
// snapshot is made anew and may be kept.
func (c *Client) Watch(ctx context.Context) <-chan dcs.Update {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	in, out := make(chan dcs.Update), make(chan dcs.Update)
	c.owned.Go(func() {
		newest(ctx, in, out)
		stop()
		cancel()
	})
	c.owned.Go(func() { c.watchForever(ctx, in) })
	return out
}

// newest passes updates on; to a slow receiver only the newest. It closes out when ctx ends.
func newest(ctx context.Context, in <-chan dcs.Update, out chan<- dcs.Update) {
	defer close(out)
	var pending dcs.Update
	var ready chan<- dcs.Update
	for {
		select {
		case pending = <-in:
			ready = out
		case ready <- pending:
			ready = nil
		case <-ctx.Done():
			return
		}
	}
}

// watchForever goes from endpoint to endpoint, each time from a whole new snapshot.
func (c *Client) watchForever(ctx context.Context, in chan<- dcs.Update) {
	send := func(u dcs.Update) {
		select {
		case in <- u:
		case <-ctx.Done():
		}
	}
	pause := firstPause
	for ctx.Err() == nil {
		delivered, err := c.watchNext(ctx, send)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errCompacted) {
			continue
		}
		send(dcs.Update{Err: err})
		if delivered {
			pause = firstPause
		}
		sleep(ctx, pause)
		pause = min(2*pause, longestPause)
	}
}

// watchNext watches the endpoint whose turn it is until that fails, and passes the turn on.
func (c *Client) watchNext(ctx context.Context, send func(dcs.Update)) (delivered bool, err error) {
	nodes, err := c.nodes(ctx, c.calls)
	if err != nil {
		return false, fmt.Errorf("etcd: watch: %w", err)
	}
	n := nodes[0]
	delivered, err = c.watchOn(ctx, n, send)
	if !errors.Is(err, errCompacted) {
		c.calls.bad(n)
	}
	return delivered, fmt.Errorf("etcd: watch on %s: %w", n.endpoint, err)
}

// watchOn watches one endpoint until that fails; it tells whether it has delivered a snapshot.
func (c *Client) watchOn(ctx context.Context, n *node, send func(dcs.Update)) (delivered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var im image
	err = c.try(ctx, n, longestTry, func(ctx context.Context, l *link) (err error) {
		im, err = c.read(ctx, l)
		return err
	})
	if err != nil {
		return false, err
	}
	c.calls.good(n)
	c.discover()
	send(dcs.Update{Snapshot: im.snapshot()})
	l, err := n.open()
	if err != nil {
		return true, err
	}
	// A member without a leader ends the stream, rather than being silently behind.
	stream, err := l.watch.Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return true, translate(err)
	}
	heard := make(chan heardFrom)
	done := make(chan struct{})
	go func() {
		defer close(done)
		listen(ctx, stream, heard)
	}()
	defer func() { cancel(); <-done }()
	return true, c.follow(ctx, stream, heard, im, send)
}

type heardFrom struct {
	resp *pb.WatchResponse
	err  error
}

func listen(ctx context.Context, stream pb.Watch_WatchClient, heard chan<- heardFrom) {
	for {
		resp, err := stream.Recv()
		select {
		case heard <- heardFrom{resp, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// follow applies events to the image until the stream ends or falls silent.
func (c *Client) follow(ctx context.Context, stream pb.Watch_WatchClient, heard <-chan heardFrom, im image, send func(dcs.Update)) error {
	if err := stream.Send(c.watchRequest(im.header.GetRevision() + 1)); err != nil {
		select {
		case h := <-heard: // Recv tells why
			err = errors.Join(err, h.err)
		case <-ctx.Done(): // the listener may have left without a word
		}
		return fmt.Errorf("the watch could not be asked for: %w", err)
	}
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	silence := time.NewTimer(silentFor)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silence.C:
			return fmt.Errorf("the watch has been silent for %s", silentFor)
		case <-ask.C:
			// Should it fail, Recv tells why.
			_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		case h := <-heard:
			silence.Reset(silentFor)
			if h.err != nil {
				return translate(h.err)
			}
			if err := c.apply(&im, h.resp); err != nil {
				return err
			}
			if len(h.resp.Events) > 0 {
				send(dcs.Update{Snapshot: im.snapshot()})
			}
		}
	}
}

func (c *Client) watchRequest(from int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key:            []byte(c.prefix),
		RangeEnd:       []byte(clientv3.GetPrefixRangeEnd(c.prefix)),
		StartRevision:  from,
		ProgressNotify: true,
	}}}
}

// apply brings the image up to date with an answer.
func (c *Client) apply(im *image, resp *pb.WatchResponse) error {
	if resp.CompactRevision != 0 {
		return errCompacted
	}
	if resp.Canceled {
		return fmt.Errorf("etcd ended the watch: %s", resp.CancelReason)
	}
	if err := c.fresh.see(resp.Header); err != nil {
		return err
	}
	for _, e := range resp.Events {
		name := strings.TrimPrefix(string(e.Kv.Key), c.prefix)
		if e.Type == mvccpb.Event_DELETE {
			delete(im.keys, name)
		} else {
			im.keys[name] = e.Kv
		}
	}
	if len(resp.Events) > 0 {
		im.header = resp.Header
	}
	return nil
}
