package etcd_test

import (
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// TestHealthOfEtcd asks a real member and an address where nobody listens.
func TestHealthOfEtcd(t *testing.T) {
	up := dcstest.StartEtcd(t)
	c, err := etcd.Open(etcd.Options{Endpoints: []string{up, "127.0.0.1:1"}, Scope: "shop", RetryTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	h := c.Health(t.Context())
	if len(h) != 2 {
		t.Fatalf("%+v", h)
	}
	first, second := h[0], h[1]
	if first.Error != "" {
		first, second = second, first
	}
	if first.Leader == 0 || first.Leader != first.MemberID || first.Version == "" || first.DBSize == 0 || len(first.Alarms) != 0 || first.Took <= 0 {
		t.Errorf("%+v", first)
	}
	if first.Syncs == 0 || first.SlowSync < 0 || first.SlowSync > 1 {
		t.Errorf("syncs: %+v", first)
	}
	if second.Error == "" {
		t.Errorf("%+v", second)
	}
}
