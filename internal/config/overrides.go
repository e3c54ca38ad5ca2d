package config

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// Overrides are settings of pools for single databases and users. What a user's say goes before what a database's say, as
// with PgBouncer, and both go before those of the listener.
type Overrides struct {
	Databases, Users map[string]Override
}

// Override is a pool of which the keys in Given hold.
type Override struct {
	Given []string
	Pool  Pool
}

// For is the pool of a database and user.
func (o Overrides) For(p Pool, database, user string) Pool {
	return o.Users[user].over(o.Databases[database].over(p))
}

func (o Override) over(p Pool) Pool {
	for _, key := range o.Given {
		reflect.ValueOf(p.field(key)).Elem().Set(reflect.ValueOf(o.Pool.field(key)).Elem())
	}
	return p
}

// most is the most server connections that the databases and users may have together that are named, or one that is not, if that is more.
func (o Overrides) most(p Pool) (n int) {
	for database := range o.Databases {
		n += o.mostOf(p, database)
	}
	n = max(n, o.mostOf(p, ""))
	// Users may be bounded over all databases.
	sum, bounded := 0, p.MaxUserConnections > 0
	for _, user := range o.Users {
		own := user.over(p).MaxUserConnections
		sum, bounded = sum+own, bounded && own > 0
	}
	if bounded {
		n = min(n, max(p.MaxUserConnections, sum))
	}
	return n
}

// mostOf is the same for one database; no name stands for any other one.
func (o Overrides) mostOf(p Pool, database string) (n int) {
	for user := range o.Users {
		own := o.For(p, database, user)
		n += own.most()
	}
	other := o.Databases[database].over(p)
	n = max(n, other.most())
	if other.MaxDBConnections > 0 {
		n = min(n, other.MaxDBConnections)
	}
	return n
}

// most is the most server connections that one database and user may have by that pool.
func (p Pool) most() int {
	n := p.DefaultPoolSize + p.ReservePoolSize
	for _, limit := range []int{p.MaxDBConnections, p.MaxUserConnections} {
		if limit > 0 {
			n = min(n, limit)
		}
	}
	return n
}

// field points to the field of a key; nil: there is no such key.
func (p *Pool) field(key string) any {
	switch key {
	case "max_client_conn":
		return &p.MaxClientConn
	case "default_pool_size":
		return &p.DefaultPoolSize
	case "min_pool_size":
		return &p.MinPoolSize
	case "reserve_pool_size":
		return &p.ReservePoolSize
	case "max_db_connections":
		return &p.MaxDBConnections
	case "max_user_connections":
		return &p.MaxUserConnections
	case "max_prepared_statements":
		return &p.MaxPreparedStatements
	case "reserve_pool_timeout":
		return &p.ReservePoolTimeout
	case "query_timeout":
		return &p.QueryTimeout
	case "query_wait_timeout":
		return &p.QueryWaitTimeout
	case "client_idle_timeout":
		return &p.ClientIdleTimeout
	case "idle_transaction_timeout":
		return &p.IdleTransactionTimeout
	case "client_login_timeout":
		return &p.ClientLoginTimeout
	case "server_lifetime":
		return &p.ServerLifetime
	case "server_idle_timeout":
		return &p.ServerIdleTimeout
	case "server_login_retry":
		return &p.ServerLoginRetry
	case "server_check_delay":
		return &p.ServerCheckDelay
	case "server_check_query":
		return &p.ServerCheckQuery
	case "server_reset_query":
		return &p.ServerResetQuery
	case "server_reset_query_always":
		return &p.ServerResetQueryAlways
	case "ignore_startup_parameters":
		return &p.IgnoreStartupParameters
	case "track_extra_parameters":
		return &p.TrackExtraParameters
	}
	return nil
}

// emptyQuery is PgBouncer's word for a statement without a command.
const emptyQuery = "<empty>"

// set reads a value into the field of a key. One that is not right has been reported before: it reads as zero.
func (p *Pool) set(key string, v *tree.Value) {
	if v == nil {
		return
	}
	switch f := p.field(key).(type) {
	case *int:
		*f = whole(v.Text)
	case *time.Duration:
		*f, _ = notation.ParseDuration(v.Text)
	case *string:
		*f = v.Text
		if key == "server_check_query" && v.Text == emptyQuery {
			*f = ";"
		}
	case *bool:
		*f, _ = notation.ParseBool(v.Text)
	case *[]string:
		*f = schema.StringsOf(v)
	}
}

// overrides reads proxy.databases and proxy.users.
func (l *loader) overrides(p *Proxy) Overrides {
	out := Overrides{Databases: l.named("proxy.databases"), Users: l.named("proxy.users")}
	if len(out.Databases)+len(out.Users) > 0 && !slices.ContainsFunc(p.Listeners, Listener.Pooled) {
		l.report.warnf(l.doc.Nearest("proxy"), "`proxy.databases` and `proxy.users` have no effect: no listener pools; give one `mode: transaction`, for instance")
	}
	return out
}

// maxName is how many bytes of a name PostgreSQL keeps (NAMEDATALEN less one).
const maxName = 63

func (l *loader) named(section string) map[string]Override {
	v := l.given(section)
	if v == nil || v.Shape != tree.Mapping {
		return nil
	}
	out := map[string]Override{}
	for _, f := range v.Fields {
		switch {
		case f.Name == "" || f.Name == "*":
			l.report.errorf(f.At, "`%s` names no one with `%s`: what holds for all is written in `proxy.pool`", section, f.Name)
		case len(f.Name) > maxName:
			l.report.errorf(f.At, "`%s`: the name `%s` has %d bytes, and PostgreSQL keeps %d of a name: write it as it is there", section, f.Name, len(f.Name), maxName)
		}
		if o := override(f.Value); len(o.Given) > 0 {
			out[f.Name] = o
		}
	}
	return out
}

func override(v *tree.Value) (o Override) {
	for _, f := range v.Fields {
		if f.Value.Shape != tree.Null && o.Pool.field(f.Name) != nil {
			o.Given = append(o.Given, f.Name)
			o.Pool.set(f.Name, f.Value)
		}
	}
	slices.Sort(o.Given)
	return o
}

// pool reads a listener's pool, with the defaults of what is not written there.
func (l *loader) pool(listener string) (p Pool) {
	for _, name := range poolNames() {
		p.set(strings.TrimPrefix(name, "pool."), l.leaf(listener+"."+name))
	}
	return p
}
