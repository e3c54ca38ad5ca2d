package etcd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// EndpointHealth is what one member of etcd says of itself.
type EndpointHealth struct {
	Endpoint string // empty: the SRV records that name the endpoints cannot be had
	Error    string // it does not answer, and why; all else is empty then
	Took     time.Duration
	Version  string
	MemberID uint64
	Leader   uint64 // 0: it knows of none
	RaftTerm uint64
	DBSize   int64
	DBQuota  int64    // 0: etcd's default of 2 GiB
	Alarms   []string // NOSPACE, CORRUPT and the like
	// SlowSync is the share of syncs of its WAL, since it was started, that took longer than SlowSyncLimit; below zero: it
	// does not tell (its metrics are not served where it is asked).
	SlowSync float64
	Syncs    uint64
}

// SlowSyncLimit is the limit that SlowSync counts by: a bound of etcd's histogram etcd_disk_wal_fsync_duration_seconds.
const SlowSyncLimit = 128 * time.Millisecond

// healthTimeout bounds the questions to one endpoint.
const healthTimeout = 2 * time.Second

// Health asks every endpoint that is known for itself. One that does not answer is in the list, with its error.
func (c *Client) Health(ctx context.Context) []EndpointHealth {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	nodes, err := c.nodes(ctx, c.calls)
	if err != nil {
		return []EndpointHealth{{Error: err.Error(), SlowSync: -1}}
	}
	out := make([]EndpointHealth, len(nodes))
	var asked sync.WaitGroup
	for i, n := range nodes {
		asked.Go(func() { out[i] = c.healthOf(ctx, n) })
	}
	asked.Wait()
	return out
}

func (c *Client) healthOf(ctx context.Context, n *node) EndpointHealth {
	h := EndpointHealth{Endpoint: n.endpoint, SlowSync: -1}
	began := time.Now()
	err := c.try(ctx, n, healthTimeout, func(ctx context.Context, l *link) error {
		s, err := l.upkeep.Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return err
		}
		h.Took = time.Since(began)
		h.Version, h.MemberID, h.Leader, h.RaftTerm = s.Version, s.Header.GetMemberId(), s.Leader, s.RaftTerm
		h.DBSize, h.DBQuota = s.DbSize, s.DbSizeQuota
		alarms, err := l.upkeep.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		if err == nil {
			for _, a := range alarms.Alarms {
				if a.MemberID == h.MemberID {
					h.Alarms = append(h.Alarms, a.Alarm.String())
				}
			}
		}
		return nil // who may read the keys need not be allowed to ask for alarms
	})
	if err != nil {
		h.Error = err.Error()
		return h
	}
	if share, count, err := c.slowSyncs(ctx, n.endpoint); err == nil {
		h.SlowSync, h.Syncs = share, count
	}
	return h
}

// slowSyncs reads the histogram of etcd's own metrics (etcd manual, metrics, disk).
func (c *Client) slowSyncs(ctx context.Context, endpoint string) (share float64, count uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.opt.TLS, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return readSyncs(io.LimitReader(resp.Body, maxAnswer))
}

func readSyncs(r io.Reader) (share float64, count uint64, err error) {
	const name = "etcd_disk_wal_fsync_duration_seconds"
	var all, quick float64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, found := strings.Cut(lines.Text(), " ")
		if !found || !strings.HasPrefix(key, name) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			continue
		}
		switch key {
		case name + "_count":
			all = v
		case fmt.Sprintf(`%s_bucket{le="%s"}`, name, strconv.FormatFloat(SlowSyncLimit.Seconds(), 'f', -1, 64)):
			quick = v
		}
	}
	if err := lines.Err(); err != nil {
		return 0, 0, err
	}
	if all == 0 {
		return 0, 0, fmt.Errorf("no metric %s", name)
	}
	return (all - quick) / all, uint64(all), nil
}
