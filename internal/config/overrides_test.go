package config

import (
	"reflect"
	"testing"
	"time"
)

// TestAUsersSettingsGoBeforeADatabases: and both before the listener's, key by key.
func TestAUsersSettingsGoBeforeADatabases(t *testing.T) {
	n, r := mustLoad(t, host(write(t, `
haven: {format: 1}
name: proxy
etcd: {hosts: [10.0.1.10]}
restapi: {authentication: {username: haven, password: secret}}
proxy:
  address: 127.0.0.1
  auth_type: trust
  mode: transaction
  pool: {default_pool_size: 10, query_timeout: 1min, server_reset_query_always: on}
  databases:
    shop: {default_pool_size: 20, max_db_connections: 30, server_reset_query_always: off, server_check_query: SELECT 1}
    "my.db": {min_pool_size: 2, server_check_query: <empty>}
  users:
    app: {default_pool_size: 5, max_user_connections: 7, query_timeout: 5s}
    none: {}
`)))
	if len(r.Faults) > 0 {
		t.Fatal(r)
	}
	own := n.Proxy.Listeners[0].Pool
	for _, c := range []struct {
		database, user string
		change         func(*Pool)
	}{
		{"other", "none", func(*Pool) {}},
		{"shop", "other", func(p *Pool) {
			p.DefaultPoolSize, p.MaxDBConnections, p.ServerResetQueryAlways, p.ServerCheckQuery = 20, 30, false, "SELECT 1"
		}},
		{"my.db", "app", func(p *Pool) {
			p.MinPoolSize, p.DefaultPoolSize, p.MaxUserConnections, p.QueryTimeout, p.ServerCheckQuery = 2, 5, 7, 5*time.Second, ";"
		}},
		{"shop", "app", func(p *Pool) {
			p.DefaultPoolSize, p.MaxDBConnections, p.ServerResetQueryAlways, p.ServerCheckQuery = 5, 30, false, "SELECT 1"
			p.MaxUserConnections, p.QueryTimeout = 7, 5*time.Second
		}},
	} {
		want := own
		c.change(&want)
		if got := n.Proxy.Overrides.For(own, c.database, c.user); !reflect.DeepEqual(got, want) {
			t.Errorf("%s of %s:\n%+v, want\n%+v", c.database, c.user, got, want)
		}
	}
	if most := n.Proxy.Overrides.most(own); most != 30 {
		t.Errorf("at most %d connections, want 20 of shop and 10 of my.db", most)
	}
	if own.DefaultPoolSize != 10 || own.QueryTimeout != time.Minute || !own.ServerResetQueryAlways || own.MaxPreparedStatements != 200 {
		t.Errorf("the listener's own: %+v", own)
	}
}

// TestUsersAreBoundedOverAllDatabases, however many of these there are.
func TestUsersAreBoundedOverAllDatabases(t *testing.T) {
	o := Overrides{Databases: map[string]Override{}, Users: map[string]Override{"app": {Given: []string{"max_user_connections"}, Pool: Pool{MaxUserConnections: 25}}}}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		o.Databases[name] = Override{Given: []string{"min_pool_size"}, Pool: Pool{MinPoolSize: 1}}
	}
	for _, c := range []struct{ limit, want int }{{0, 100}, {20, 25}, {30, 30}} {
		if got := o.most(Pool{DefaultPoolSize: 20, MaxUserConnections: c.limit}); got != c.want {
			t.Errorf("with max_user_connections %d: %d connections, want %d", c.limit, got, c.want)
		}
	}
}

// TestEveryKeyOfAPoolHasAField, so that none is read into nothing.
func TestEveryKeyOfAPoolHasAField(t *testing.T) {
	var p Pool
	seen := map[any]bool{}
	for _, name := range poolNames() {
		f := p.field(name[len("pool."):])
		if f == nil || seen[f] {
			t.Errorf("%s is read into %v", name, f)
		}
		seen[f] = true
	}
	if n := reflect.TypeOf(p).NumField(); n != len(seen) {
		t.Errorf("%d fields, %d keys", n, len(seen))
	}
}
