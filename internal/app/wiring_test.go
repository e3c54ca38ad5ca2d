package app

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/havenha/haven/internal/config"
)

func TestStoreOptionsOfSRVRecords(t *testing.T) {
	o, err := StoreOptions(&config.Node{Scope: "shop", Etcd: config.Etcd{SRV: "example.com", SRVSuffix: "main", Scheme: "http"}}, slog.New(slog.DiscardHandler))
	if err != nil || o.SRV != "example.com" || o.SRVSuffix != "main" || len(o.Endpoints) != 0 || !o.Discover {
		t.Errorf("%+v, %v", o, err)
	}
}

// What needs the cluster's keys fails on a node without a store, and says why.
func TestNoStore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	updates := (&Node{}).keys().Watch(ctx)
	if u := <-updates; !errors.Is(u.Err, errNoStore) {
		t.Errorf("the watch tells %+v", u)
	}
	cancel()
	if _, open := <-updates; open {
		t.Error("the watch goes on after its end")
	}
	if _, err := (&Node{}).keys().Snapshot(t.Context()); !errors.Is(err, errNoStore) {
		t.Errorf("a read: %v", err)
	}
}
