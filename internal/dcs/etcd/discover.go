package etcd

import (
	"context"
	"net"
	"net/url"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// discoverEvery is how old the member list, or the SRV records, may become.
const discoverEvery = time.Minute

// timetable is when the endpoints were last asked for.
type timetable struct {
	mu   sync.Mutex
	last time.Time
}

// due tells whether they are to be asked for again, which then counts as done.
func (d *timetable) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.last.IsZero() && time.Since(d.last) < discoverEvery {
		return false
	}
	d.last = time.Now()
	return true
}

// discover learns the endpoints from etcd's member list, beside the caller, where that is wanted and due.
func (c *Client) discover() {
	if !c.opt.Discover || c.ctx.Err() != nil || !c.discovery.due() {
		return
	}
	c.owned.Go(func() {
		var learned []string
		err := c.call(c.ctx, "list members", func(ctx context.Context, l *link) error {
			resp, err := l.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			if err == nil {
				learned = clientURLs(resp.Members)
			}
			return err
		})
		if err != nil {
			c.opt.Log.Debug("etcd members not learned", "error", err)
			return
		}
		learned = usable(learned, c.calls.configured())
		c.calls.learn(learned)
		c.renewals.learn(learned)
	})
}

func clientURLs(members []*pb.Member) []string {
	var urls []string
	for _, m := range members {
		if !m.IsLearner {
			urls = append(urls, m.ClientURLs...)
		}
	}
	return urls
}

// usable leaves out advertised addresses that mean this host, unless the configured ones do too: etcd's default
// advertisement is http://localhost:2379, which on this host may be another cluster.
func usable(learned, configured []string) []string {
	for _, e := range configured {
		if isLocal(e) {
			return learned
		}
	}
	var out []string
	for _, e := range learned {
		if !isLocal(e) {
			out = append(out, e)
		}
	}
	return out
}

func isLocal(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
