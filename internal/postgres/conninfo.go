package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// upstreamConninfo is the connection string by which PostgreSQL's own programs reach an upstream, in Patroni's order of
// keywords. The password stays in the password file. addr, when not empty, spares them the name service.
func (i *Instance) upstreamConninfo(up Upstream, c Credentials, addr string) string {
	words := []session.Keyword{
		{"dbname", i.opt.Database}, {"user", c.Username}, {"passfile", i.opt.PgPass},
		{"host", up.Host}, {"hostaddr", addr}, {"port", up.Port},
		{"sslmode", firstOf(c.SSLMode, "prefer")},
		{"sslcert", c.SSLCert}, {"sslkey", c.SSLKey}, {"sslpassword", c.SSLPassword},
		{"sslrootcert", c.SSLRootCert}, {"sslcrl", c.SSLCRL}, {"sslcrldir", c.SSLCRLDir},
		{"application_name", i.opt.Name}, {"krbsrvname", i.opt.KrbSrvName},
		{"gssencmode", firstOf(c.GSSEncMode, "prefer")},
		{"channel_binding", firstOf(c.ChannelBinding, "prefer")},
	}
	if i.version >= 170000 {
		words = append(words, session.Keyword{"sslnegotiation", firstOf(c.SSLNegotiation, "postgres")})
	}
	return session.Conninfo(words)
}

// resolve gives the address of an upstream's host name, so that a receiver that is to end soon is not held up by a slow
// name service. An address that was found stays until the name has another one; without an answer the last one holds.
func (i *Instance) resolve(host string) string {
	if net.ParseIP(host) != nil || strings.HasPrefix(host, "/") || strings.Contains(host, ",") {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil || len(addrs) == 0 || slices.Contains(addrs, i.addrs[host]) {
		return i.addrs[host]
	}
	slices.SortFunc(addrs, func(a, b string) int {
		if v4a, v4b := strings.Contains(a, "."), strings.Contains(b, "."); v4a != v4b {
			if v4a {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	i.addrs[host] = addrs[0]
	return addrs[0]
}

// writePgPass writes the password file for PostgreSQL's own programs: the local server, and the upstream if there is
// one (PostgreSQL manual, "The Password File").
func (i *Instance) writePgPass(up *Upstream) error {
	var b strings.Builder
	line := func(host, port string, c Credentials) {
		esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
		text := fmt.Sprintf("%s:%s:*:%s:%s\n", esc.Replace(host), port, esc.Replace(c.Username), esc.Replace(c.Password))
		if c.Password != "" && !strings.Contains(b.String(), text) {
			b.WriteString(text)
		}
	}
	hosts := []session.Keyword{{i.localHost(), strconv.Itoa(i.opt.Port)}}
	if strings.HasPrefix(i.localHost(), "/") {
		hosts = append(hosts, session.Keyword{"localhost", strconv.Itoa(i.opt.Port)})
	}
	if up != nil {
		for _, h := range strings.Split(up.Host, ",") {
			hosts = append(hosts, session.Keyword{h, firstOf(up.Port, "5432")})
		}
	}
	for _, h := range hosts {
		for _, c := range []Credentials{i.logins().Superuser, i.logins().Replication, i.logins().Rewind} {
			line(h[0], h[1], c)
		}
	}
	_, err := i.replaceFile(i.opt.PgPass, []byte(b.String()), 0o600)
	return err
}

// localHost is where we reach the local server (Patroni's rule: the socket if asked for, else the loopback address if
// the server listens there, else its first address).
func (i *Instance) localHost() string {
	if dir := socketDir(i.opt.SocketDir); i.opt.UseUnixSocket && dir != "" {
		return dir
	}
	addrs := strings.Split(i.opt.ListenAddresses, ",")
	for _, a := range addrs {
		switch strings.TrimSpace(a) {
		case "*", "0.0.0.0", "127.0.0.1", "":
			return "127.0.0.1"
		case "::":
			return "::1"
		case "localhost":
			return "localhost"
		}
	}
	return strings.TrimSpace(addrs[0])
}

// socketDir is the first absolute directory of unix_socket_directories, as Patroni chooses.
func socketDir(list string) string {
	for dir := range strings.SplitSeq(list, ",") {
		if dir = strings.Trim(strings.TrimSpace(dir), `"`); strings.HasPrefix(dir, "/") {
			return dir
		}
	}
	return ""
}

// connConfig builds pgconn's configuration from explicit values alone; what the environment says is overridden.
func connConfig(host, port, database string, c Credentials, appName string) (*pgconn.Config, error) {
	sslmode := firstOf(c.SSLMode, "prefer")
	if strings.HasPrefix(host, "/") {
		sslmode = "disable"
	}
	words := []session.Keyword{
		{"host", host}, {"port", firstOf(port, "5432")}, {"user", c.Username}, {"dbname", database},
		{"passfile", "/nonexistent"}, {"sslmode", sslmode}, {"target_session_attrs", "any"},
		{"sslcert", c.SSLCert}, {"sslkey", c.SSLKey}, {"sslpassword", c.SSLPassword}, {"sslrootcert", c.SSLRootCert},
		{"sslnegotiation", c.SSLNegotiation}, {"application_name", appName}, {"connect_timeout", "3"},
	}
	cfg, err := pgconn.ParseConfig(session.Conninfo(words))
	if err != nil {
		return nil, fmt.Errorf("connection settings for %s@%s: %w", c.Username, net.JoinHostPort(host, port), err)
	}
	cfg.Password = c.Password
	if !strings.HasPrefix(host, "/") {
		// A host that vanished is noticed after about ten seconds, not after hours.
		alive := net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3}
		cfg.DialFunc = (&net.Dialer{Timeout: 3 * time.Second, KeepAliveConfig: alive}).DialContext
	}
	for k := range cfg.RuntimeParams {
		if k != "application_name" {
			delete(cfg.RuntimeParams, k) // from PGOPTIONS or PGTZ
		}
	}
	return cfg, nil
}

// localConfig are the settings of a session of the superuser on the local server. Another server of this host that listens on its
// port, be it another member's with the same password, is not taken for it.
func (i *Instance) localConfig(database, appName string) (*pgconn.Config, error) {
	cfg, err := connConfig(i.localHost(), strconv.Itoa(i.opt.Port), database, i.logins().Superuser, appName)
	if err == nil {
		cfg.ValidateConnect = i.isOurs
	}
	return cfg, err
}

// isOurs fails if the server of a session is known to be that of another data directory.
func (i *Instance) isOurs(ctx context.Context, conn *pgconn.PgConn) error {
	rows, err := session.Query(ctx, conn, "SHOW data_directory")
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code == "42501" { // to a role that is no superuser
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the data directory: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return fmt.Errorf("port %d is no PostgreSQL server's: asked for its data directory it says %q", i.opt.Port, rows)
	}
	there, errThere := os.Stat(rows[0][0])
	here, errHere := os.Stat(i.opt.DataDir)
	if errThere == nil && errHere == nil && !os.SameFile(here, there) {
		return fmt.Errorf("port %d is another server's: its data directory is %s, ours %s", i.opt.Port, rows[0][0], i.opt.DataDir)
	}
	return nil
}

// connect opens a session of the superuser on the local server.
func (i *Instance) connect(ctx context.Context, database string, params map[string]string) (*pgconn.PgConn, error) {
	cfg, err := i.localConfig(firstOf(database, i.opt.Database), "Haven")
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["statement_timeout"] = "0"
	// Nothing that we write may wait for a synchronous standby: we may be what repairs it.
	cfg.RuntimeParams["synchronous_commit"] = "local"
	for k, v := range params {
		cfg.RuntimeParams[k] = v
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the local server: %w", err)
	}
	return conn, nil
}

// connectUpstream opens a physical replication connection.
func (i *Instance) connectUpstream(ctx context.Context, up Upstream) (*pgconn.PgConn, error) {
	cfg, err := connConfig(up.Host, up.Port, "", i.logins().Replication, i.opt.Name)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s for replication: %w", up.Address(), err)
	}
	return conn, nil
}

// query runs one statement on a session of its own and returns its rows as text.
func (i *Instance) query(ctx context.Context, sql string) ([][]string, error) {
	conn, err := i.connect(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	defer session.Close(conn)
	return session.Query(ctx, conn, sql)
}
