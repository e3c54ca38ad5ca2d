package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/shmem"
)

// TestMemberWithEmptyDisksComesBack takes everything from a member, its database and its etcd data, and starts it
// again: it joins the living etcd cluster under a new identity, never a second one beside it, and copies the database.
func TestMemberWithEmptyDisksComesBack(t *testing.T) {
	c := startCluster(t, 3, "on")
	s := c.await("a synchronous standby", c.synchronous)
	lost := other(c.plan.Members, s.Leader.Name)
	tr := c.traffic("ledger")
	c.killMember(lost)
	for _, dir := range []string{filepath.Join(c.plan.Dir, lost), filepath.Join(c.plan.Dir, "nodes", "demo", lost)} {
		if _, err := os.Stat(dir); err != nil {
			t.Fatal(err)
		}
		if err := shmem.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	c.await("the others go on", func(s cluster.Snapshot) bool { return c.whole(s, 2) && len(s.Sync.Standbys) == 1 })
	before := s.ClusterID
	c.start(lost)
	s = c.await("three streaming members", c.healthy)
	c.judge(tr)
	if s.ClusterID != before {
		t.Errorf("etcd cluster %x became %x", before, s.ClusterID)
	}
	etcdctl := need(t, "etcdctl")
	pgtest.Eventually(t, "etcd's new member is one of three, and no learner any more", func() error {
		out, err := exec.Command(etcdctl, "--endpoints", c.plan.Etcd[index(c.plan.Members, lost)], "member", "list").CombinedOutput()
		if err == nil && strings.Count(string(out), "started") != 3 {
			err = errors.New("not three that have started")
		}
		if err != nil {
			err = fmt.Errorf("members of etcd as %s sees them: %w\n%s", lost, err, out)
		}
		return err
	})
}

func index(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}
