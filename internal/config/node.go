package config

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/havenha/haven/internal/config/tree"
)

// Format is the grammar of a node's file.
type Format string

// The formats: Haven's is strict, Patroni's is as lenient as Patroni.
const (
	Haven   Format = "haven"
	Patroni Format = "patroni"
)

// Source says where a configuration comes from, and what of the host its defaults depend on.
type Source struct {
	// Path is a file or a directory of *.yml and *.yaml. Empty: PATRONI_CONFIGURATION, or the variables alone.
	Path string
	// Name chooses the node of a file with the section nodes; in other files it overrides name.
	Name string
	// Env is the environment in the form of os.Environ.
	Env []string
	// WorkDir is the working directory, the start of relative paths that stand in variables. Empty leaves them relative.
	WorkDir string
	// Hostname is the host's name; its part before the first dot is the default of name.
	Hostname string
	// Addresses are the host's global addresses.
	Addresses []netip.Addr
	// Root tells whether this process runs as root.
	Root bool
	// Client tells that the file is read by a command, not to run a node: it needs no role, no name and no address, and
	// of a file with the section nodes any node will do. Secrets that this user may not read are left empty: without a
	// fault, but for etcd's (an error) and those that REST APIs are asked with (a warning).
	Client bool
}

// Node is the whole effective configuration of one node.
type Node struct {
	Format Format
	// File is the path that was read; empty with variables alone.
	File                   string
	Scope, Name, Namespace string

	Haven     HavenSection
	Etcd      Etcd
	Postgres  *Postgres  // nil: this node has no database
	Bootstrap *Bootstrap // nil: this node never makes a new cluster
	RESTAPI   *RESTAPI   // never nil in a loaded Node
	CTL       CTL
	Tags      map[string]any // bool, int, float64, string, list or map, as YAML typed them
	Proxy     *Proxy         // nil: no proxy
	Log       Log
	Watchdog  Watchdog

	// Origins says for each key path where its value comes from: default, file:line, or a variable.
	Origins map[string]string

	src     Source
	doc     *tree.Value // what was written, with defaults filled in
	written *tree.Value // what was written
	proxies int         // nodes of the section nodes that have a proxy; 0: there is no such section
}

// HavenSection is the section haven.
type HavenSection struct {
	Address  string
	StateDir string // see Dir
	TLS      TLS
	// Guard is whether a guard process keeps the deadline; without one the node does not start then. GuardMargin 0 means: ttl/10, at least 1 s.
	Guard       bool
	GuardMargin time.Duration
	JournalSize int64 // bytes
}

// TLS is a certificate with its key and the authority that peers are checked against. All empty: plain.
type TLS struct{ CAFile, CertFile, KeyFile, KeyPassword string }

// On tells whether a certificate is configured.
func (t TLS) On() bool { return t.CertFile != "" }

// Etcd is the section etcd (or etcd3).
type Etcd struct {
	Embedded bool
	Members  []EtcdMember // as written
	// Hosts are the endpoints to connect to, own member first: host:port, or a URL where the file has one.
	Hosts              []string
	Scheme             string // http or https, for entries of Hosts that are not URLs
	Username, Password string
	CACert, Cert, Key  string
	KeyPassword        string
	// PeerTLS is for connections between embedded members.
	PeerTLS         TLS
	Token           string
	ElectionTimeout time.Duration
	SRV, SRVSuffix  string
	// UseProxies: connect only to Hosts, never to the addresses that members announce.
	UseProxies bool
}

// Own returns the embedded member of that name.
func (e Etcd) Own(name string) (EtcdMember, bool) {
	for _, m := range e.Members {
		if m.Name == name {
			return m, true
		}
	}
	return EtcdMember{}, false
}

// EtcdMember is one entry of etcd.members; Client and Peer are host:port.
type EtcdMember struct{ Name, Client, Peer string }

// Auth is how a role of the cluster's own logs in (libpq's parameters of the same names).
type Auth struct {
	Username, Password                         string
	SSLMode, SSLCert, SSLKey, SSLPassword      string
	SSLRootCert, SSLCRL, SSLCRLDir             string
	GSSEncMode, ChannelBinding, SSLNegotiation string
}

// Postgres is the local section postgresql; PostgresWith lays the dynamic configuration under it.
type Postgres struct {
	Listen          string // as written or defaulted: address[,address]:port
	ListenAddresses string // comma separated, as PostgreSQL's listen_addresses
	Port            int
	ConnectAddress  string // host:port that other members and clients use
	ProxyAddress    string
	DataDir         string
	ConfigDir       string // DataDir unless given
	ConfigBaseName  string
	CustomConf      string
	BinDir          string            // empty: see FindBinDir
	BinNames        map[string]string // program → its name, for instance pg_ctl → pg_ctl-15
	RunAs           string            // operating system user of the server; empty: our own
	Database        string
	PgPass          string // empty: the caller chooses

	Superuser, Replication, Rewind Auth // Rewind is the superuser where none is given

	Parameters       map[string]string
	ParametersByRole map[string]map[string]string // primary, replica, standby_leader
	HBA, Ident       []string                     // nil: not configured
	HBAByRole        map[string][]string
	IdentByRole      map[string][]string
	RecoveryConf     map[string]string

	UseUnixSocket, UseUnixSocketRepl                               bool
	UsePgRewind                                                    bool
	RemoveDataDirOnRewindFailure, RemoveDataDirOnDivergedTimelines bool

	// BaseBackup and RewindOptions are ready options of pg_basebackup and pg_rewind: --checkpoint=fast.
	BaseBackup, RewindOptions []string
	// ReplicaMethods are the ways to make a copy, in the order of trying, and RemoteMethods those to make the first one of a
	// standby cluster; the latter only in what PostgresWith gives. Neither is empty.
	ReplicaMethods         []Method
	RemoteMethods          []Method
	Callbacks              map[string]string
	PgCtlTimeout           time.Duration
	PrePromote, BeforeStop string
	KrbSrvName             string
}

// Bootstrap is the section bootstrap.
type Bootstrap struct {
	// DCS is bootstrap.dcs as JSON, as it was written; see DefaultDCS.
	DCS json.RawMessage
	// InitDB are ready options of initdb: --encoding=UTF8.
	InitDB        []string
	Method        Method // named InitDBMethod, or a command
	PostBootstrap string
	HBA           []string
	Databases     []Database
}

// Database is made once, when the cluster is made.
type Database struct{ Name, Owner, Password string }

// RESTAPI is the section restapi.
type RESTAPI struct {
	Listen, ConnectAddress                 string
	Username, Password                     string
	CertFile, KeyFile, KeyPassword, CAFile string
	Ciphers                                string
	VerifyClient                           string // none, optional, required
	AllowList                              []string
	AllowListIncludeMembers                bool
	HTTPExtraHeaders, HTTPSExtraHeaders    map[string]string
	RequestQueueSize                       int
	ServerTokens                           string // original, productonly, minimal
}

// CTL is the section ctl: how commands talk to REST APIs.
type CTL struct {
	Username, Password                     string
	Insecure                               bool
	CACert, CertFile, KeyFile, KeyPassword string
}

// Proxy is the section proxy.
type Proxy struct {
	Address   string
	Listeners []Listener
	Stats     *Stats    // nil: none
	Discover  string    // etcd or rest
	Members   []string  // REST addresses, with discover: rest
	Threads   int       // processors that the program runs on at once; 0: it chooses
	Overrides Overrides // of the pooled modes
	Auth      ProxyAuth // of the pooled modes
	TLS       TLS       // of the pooled modes, towards clients
	ServerTLS TLS       // of the pooled modes, towards servers; without a certificate: none is shown
}

// Bases are the URLs of the members' REST APIs, without a slash at the end.
func (p *Proxy) Bases() []string {
	var out []string
	for _, m := range p.Members {
		if !strings.Contains(m, "://") {
			m = "http://" + m
		}
		out = append(out, strings.TrimRight(m, "/"))
	}
	return out
}

// ProxyAuth is how clients of pooled listeners log in, and how their servers are logged in to, in PgBouncer's words.
type ProxyAuth struct {
	Type, File, HBAFile, Query, User, Database string
	ClientMode, ServerMode                     string // client_tls_sslmode, server_tls_sslmode
}

// Listener is one port of the proxy. Times of 0 mean no limit.
type Listener struct {
	Listen                      string // a,b:port; a directory stands for the Unix socket in it
	SocketMode                  uint32 // permissions of Unix sockets
	SocketGroup                 string // theirs; empty: that of the process
	Target                      string // primary or replica
	Mode                        string // tcp, session, transaction or statement
	HoldTimeout                 time.Duration
	MaxLag                      int64  // bytes
	Fallback                    string // primary or none
	Admit                       int    // new server connections a second
	ConnectTimeout, IdleTimeout time.Duration
	Pool                        Pool // of the pooled modes
}

// Pool is how a pooled mode lends server connections, in PgBouncer's words. Numbers and times of 0 mean no limit.
type Pool struct {
	MaxClientConn, DefaultPoolSize, MinPoolSize, ReservePoolSize  int
	MaxDBConnections, MaxUserConnections, MaxPreparedStatements   int
	ReservePoolTimeout, QueryTimeout, QueryWaitTimeout            time.Duration
	ClientIdleTimeout, IdleTransactionTimeout, ClientLoginTimeout time.Duration
	ServerLifetime, ServerIdleTimeout, ServerLoginRetry           time.Duration
	ServerCheckDelay                                              time.Duration
	ServerCheckQuery, ServerResetQuery                            string
	ServerResetQueryAlways                                        bool
	IgnoreStartupParameters, TrackExtraParameters                 []string
}

// Stats is the statistics port of the proxy.
type Stats struct {
	Listen             string
	Allow              []netip.Prefix
	Username, Password string
}

// Log is the section log; Format and DateFormat are in Python's notation.
type Log struct {
	Type, Level, TracebackLevel, DateFormat string
	// Format is a line's layout in Python's notation, and Fields are those of a JSON record; neither: slog's own.
	Format                   string
	Fields                   []LogField
	File                     string // name of the file in Dir
	StaticFields             map[string]string
	Loggers                  map[string]string // severity by part of the program; see LogRest
	Dir, Mode                string
	FileSize                 int64
	FileNum                  int
	DeduplicateHeartbeatLogs bool
}

// LogField is a field of Python's logging module with the key that it gets in a JSON record.
type LogField struct{ Name, As string }

// Modes of the watchdog.
const (
	WatchdogOff       = "off"
	WatchdogAutomatic = "automatic"
	WatchdogRequired  = "required"
)

// Watchdog is the section watchdog. SafetyMargin -1 s means half of ttl.
type Watchdog struct {
	Mode, Device, Driver string
	SafetyMargin         time.Duration
}

// Dir is where this node keeps its own state: <state_dir>/nodes/<scope>/<name>. The step nodes keeps it apart from a
// data directory <state_dir>/<scope>.
func (n *Node) Dir() string { return filepath.Join(n.Haven.StateDir, "nodes", n.Scope, n.Name) }

// HasStore tells whether the configuration says where etcd is. A proxy alone that asks REST APIs (proxy.discover: rest) may
// be without.
func (n *Node) HasStore() bool { return n.Etcd.Embedded || len(n.Etcd.Hosts) > 0 || n.Etcd.SRV != "" }

// NeedsStore tells whether the node does anything by etcd: it serves a database, a member of etcd, or a proxy that learns the
// cluster from there.
func (n *Node) NeedsStore() bool {
	return n.Postgres != nil || n.Etcd.Embedded || n.Proxy == nil || n.Proxy.Discover != "rest"
}

// Roles names what this node does: etcd, postgresql, proxy.
func (n *Node) Roles() []string {
	var roles []string
	if n.Etcd.Embedded {
		roles = append(roles, "etcd")
	}
	if n.Postgres != nil {
		roles = append(roles, "postgresql")
	}
	if n.Proxy != nil {
		roles = append(roles, "proxy")
	}
	return roles
}
