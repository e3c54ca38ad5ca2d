package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func startAll(t *testing.T, all []ServerOptions) []*Server {
	t.Helper()
	var servers []*Server
	for _, o := range all {
		servers = append(servers, startMember(t, o))
	}
	return servers
}

// rawPut writes and reads a key through one endpoint.
func rawPut(t *testing.T, endpoint, key, value string) {
	t.Helper()
	n := &node{endpoint: endpoint, opt: &Options{Log: slog.New(slog.DiscardHandler)}}
	defer n.close()
	l, err := n.open()
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := l.kv.Put(ctx, key, value)
		cancel()
		if err == nil {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("put %s on %s: %v", key, endpoint, err)
		}
	}
}

func rawGet(t *testing.T, endpoint, key string) string {
	t.Helper()
	n := &node{endpoint: endpoint, opt: &Options{Log: slog.New(slog.DiscardHandler)}}
	defer n.close()
	l, err := n.open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	resp, err := l.kv.Get(ctx, key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("get %s on %s: %v %v", key, endpoint, resp, err)
	}
	return string(resp.Kvs[0].Value)
}

func memberIDs(t *testing.T, endpoint string) (uint64, map[string]uint64) {
	t.Helper()
	n := &node{endpoint: endpoint, opt: &Options{Log: slog.New(slog.DiscardHandler)}}
	defer n.close()
	l, err := n.open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a write before it may wait for the disk
	defer cancel()
	resp, err := l.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]uint64{}
	for _, m := range resp.Members {
		if m.IsLearner {
			t.Errorf("member %s is still a learner", m.Name)
		}
		ids[m.Name] = m.ID
	}
	return resp.Header.ClusterId, ids
}

func wipe(t *testing.T, o ServerOptions) {
	t.Helper()
	if err := os.RemoveAll(o.DataDir); err != nil {
		t.Fatal(err)
	}
}

// Three form a cluster; one is lost and the others go on; it comes back with an empty disk and is replaced.
func TestThreeMembersSurviveOneAndReplaceIt(t *testing.T) {
	all := memberOptions(t, "three", 3)
	servers := startAll(t, all)
	awaitReady(t, servers...)
	id, before := memberIDs(t, servers[0].Endpoint())
	rawPut(t, servers[0].Endpoint(), "/k", "v1")
	lost := 2
	for i, s := range servers {
		if s.IsLeader() {
			lost = i
		}
	}
	end(t, servers[lost])
	rest := servers[(lost+1)%3]
	rawPut(t, rest.Endpoint(), "/k", "v2")
	wipe(t, all[lost])
	again := startMember(t, all[lost])
	awaitReady(t, again)
	idAfter, after := memberIDs(t, again.Endpoint())
	if idAfter != id || len(after) != 3 {
		t.Errorf("cluster %x has members %v, before %x %v", idAfter, after, id, before)
	}
	if name := all[lost].Name; after[name] == before[name] {
		t.Errorf("member %s came back under the identity whose data it has lost", name)
	}
	if v := rawGet(t, again.Endpoint(), "/k"); v != "v2" {
		t.Errorf("the replaced member reads %q", v)
	}
	end(t, again)
	awaitReady(t, startMember(t, all[lost]))
}

// A member that has lost its disk must not form anything with its old identity while the others cannot be asked, and
// joins once they can.
func TestEmptyMemberWaitsForTheOthers(t *testing.T) {
	all := memberOptions(t, "waits", 3)
	servers := startAll(t, all)
	awaitReady(t, servers...)
	rawPut(t, servers[0].Endpoint(), "/k", "v")
	for _, s := range servers {
		end(t, s)
	}
	wipe(t, all[1])
	wipe(t, all[2])
	two := []*Server{startMember(t, all[1]), startMember(t, all[2])}
	neverReady(t, 2*time.Second, two...)
	one := startMember(t, all[0])
	neverReady(t, 2*time.Second, append(two, one)...)
	for _, s := range two {
		if s.running() != nil {
			t.Errorf("member %s runs an etcd beside the one that holds the data", s.opt.Name)
		}
	}
}

func neverReady(t *testing.T, d time.Duration, servers ...*Server) {
	t.Helper()
	limit := time.After(d)
	for _, s := range servers {
		select {
		case <-s.Ready():
			t.Errorf("member %s became ready", s.opt.Name)
		case err := <-s.Err():
			t.Errorf("member %s: %v", s.opt.Name, err)
		case <-limit:
			return
		}
	}
}

// One of three comes back empty while only one other is there: no quorum, so it waits, and joins when the third is back.
func TestEmptyMemberJoinsWhenQuorumIsBack(t *testing.T) {
	all := memberOptions(t, "quorum", 3)
	servers := startAll(t, all)
	awaitReady(t, servers...)
	id, _ := memberIDs(t, servers[0].Endpoint())
	rawPut(t, servers[0].Endpoint(), "/k", "v")
	for _, s := range servers {
		end(t, s)
	}
	wipe(t, all[2])
	empty := startMember(t, all[2])
	first := startMember(t, all[0])
	neverReady(t, 2*time.Second, empty, first)
	second := startMember(t, all[1])
	awaitReady(t, first, second, empty)
	idAfter, members := memberIDs(t, empty.Endpoint())
	if idAfter != id || len(members) != 3 || rawGet(t, empty.Endpoint(), "/k") != "v" {
		t.Errorf("cluster %x, before %x, members %v", idAfter, id, members)
	}
	if err := leaderOf(first, second, empty).MoveLeader(t.Context()); err != nil {
		t.Errorf("move leadership: %v", err)
	}
}

func leaderOf(servers ...*Server) *Server {
	for _, s := range servers {
		if s.IsLeader() {
			return s
		}
	}
	return servers[0]
}

// Members that start one after the other, one of them killed and started again in between, form one cluster.
func TestFormingWaitsForAll(t *testing.T) {
	all := memberOptions(t, "late", 3)
	first, second := startMember(t, all[0]), startMember(t, all[1])
	neverReady(t, time.Second, first, second)
	end(t, second)
	third := startMember(t, all[2])
	second = startMember(t, all[1])
	awaitReady(t, first, second, third)
	if _, members := memberIDs(t, first.Endpoint()); len(members) != 3 {
		t.Errorf("members %v", members)
	}
}

// Data that cannot be looked at are not missing: nothing is removed, and no cluster is begun anew.
func TestUnreadableDataAreNotMissing(t *testing.T) {
	o := memberOptions(t, "one", 1)[0]
	o.DataDir = filepath.Join(o.DataDir, "shop[1]*") // neither is a name with the signs of a pattern
	s := startMember(t, o)
	awaitReady(t, s)
	before, _ := memberIDs(t, s.Endpoint())
	end(t, s)
	s = startMember(t, o)
	awaitReady(t, s)
	if after, _ := memberIDs(t, s.Endpoint()); after != before {
		t.Errorf("cluster %x became %x", before, after)
	}
	end(t, s)
	logs, aside := filepath.Join(o.DataDir, "member", "wal"), filepath.Join(o.DataDir, "wal")
	if err := os.Rename(logs, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logs, nil, 0o600); err != nil { // so that it cannot be read as a directory
		t.Fatal(err)
	}
	s = startMember(t, o)
	select {
	case err := <-s.Err():
		if !strings.Contains(err.Error(), "whether there are data is not known") {
			t.Errorf("unclear: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no error")
	}
	if _, err := os.Stat(filepath.Join(o.DataDir, "member", "snap")); err != nil {
		t.Errorf("data were removed: %v", err)
	}
	if err := clearRemains(o.DataDir); err == nil {
		t.Error("remains are cleared that cannot be looked at")
	}
	if err := errors.Join(os.Remove(logs), os.Rename(aside, logs)); err != nil {
		t.Fatal(err)
	}
	if err := clearRemains(o.DataDir); err == nil || !strings.Contains(err.Error(), "has left a log") {
		t.Errorf("a log is cleared: %v", err)
	}
}

func TestMemberOfAnotherClusterIsRefused(t *testing.T) {
	all := memberOptions(t, "mine", 2)
	other := all[1]
	other.Token = "theirs"
	first, second := startMember(t, all[0]), startMember(t, other)
	var err error
	select {
	case err = <-first.Err():
	case err = <-second.Err():
	case <-time.After(20 * time.Second):
		t.Fatal("a member of another cluster was not refused")
	}
	for _, part := range []string{`"mine"`, `"theirs"`, "etcd.token"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("unclear, %s is missing: %v", part, err)
		}
	}
	one := memberOptions(t, "mine", 1)[0]
	s := startMember(t, one)
	awaitReady(t, s)
	end(t, s)
	one.Token = "theirs"
	if s, err := StartServer(t.Context(), one); err == nil {
		end(t, s)
		t.Error("data of another cluster were taken")
	} else if !strings.Contains(err.Error(), `holds data of cluster "mine"`) {
		t.Errorf("unclear: %v", err)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	all := memberOptions(t, "a", 1)
	awaitReady(t, startMember(t, all[0]))
	o := memberOptions(t, "b", 1)[0]
	o.Members[0].Client = all[0].Members[0].Client
	s := startMember(t, o)
	select {
	case err := <-s.Err():
		if !strings.Contains(err.Error(), o.Members[0].Client) || !strings.Contains(err.Error(), "another program") {
			t.Errorf("unclear: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no error")
	}
}

func TestEtcdctlWorksOnTheEmbedded(t *testing.T) {
	path, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("no etcdctl is installed: install etcd-client to run this test")
	}
	var log bytes.Buffer
	o := memberOptions(t, "ctl", 1)[0]
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := startMember(t, o)
	awaitReady(t, s)
	run := func(args ...string) string {
		cmd := exec.Command(path, append([]string{"--endpoints", s.Endpoint()}, args...)...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("etcdctl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run("member", "list"); !strings.Contains(out, "started, db1, http://"+o.Members[0].Peer) {
		t.Errorf("member list: %s", out)
	}
	run("put", "/a", "b")
	if out := run("get", "/a"); out != "/a\nb\n" {
		t.Errorf("get: %q", out)
	}
	if info, err := os.Stat(o.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v %v", info.Mode(), err)
	}
	end(t, s)
	if !strings.Contains(log.String(), `level=DEBUG msg="etcd reports" source=server`) {
		t.Error("etcd's log does not come through ours")
	}
}

// With three endpoints, the loss of the one in use is got over within about two seconds, by calls, watch and renewal.
func TestClientLeavesALostEndpoint(t *testing.T) {
	all := memberOptions(t, "leave", 3)
	servers := startAll(t, all)
	awaitReady(t, servers...)
	c := openClient(t, Options{Endpoints: []string{servers[0].Endpoint()}, Discover: true, RetryTimeout: 20 * time.Second})
	h := lead(t, c, "db1")
	for began := time.Now(); len(c.calls.order()) < 3; {
		if _, err := c.Snapshot(t.Context()); err != nil || time.Since(began) > 10*time.Second {
			t.Fatalf("endpoints were not learned: %v", err)
		}
	}
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	end(t, servers[0])
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Errorf("renewal after the loss of an endpoint: %v", err)
	}
	s, err := c.Snapshot(t.Context())
	if err != nil || s.Leader == nil || s.Leader.ModRev != h.LeaderRev {
		t.Errorf("snapshot after the loss of an endpoint: %v %+v", err, s.Leader)
	}
}

func enableAuth(t *testing.T, endpoint string) {
	t.Helper()
	c, err := clientv3.NewFromURL(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, step := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "guest", "guest"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(fmt.Errorf("enable authentication: %w", err))
		}
	}
}
