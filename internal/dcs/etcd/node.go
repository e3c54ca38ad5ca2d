package etcd

import (
	"context"
	"net"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	dialTimeout = time.Second
	// The shortest that gRPC allows a client to ping; etcd's servers refuse pings more often than every 5 s.
	pingTime = 10 * time.Second
	// gRPC also sets it as TCP_USER_TIMEOUT: unacknowledged data ends a connection to a dead host after it.
	pingTimeout = 2 * time.Second
	// Above the largest answer of a prefix with a hundred members; etcd's own limit of a request is 1.5 MB.
	maxAnswer = 64 << 20
)

// node is one endpoint with a connection of its own, made at its first use.
type node struct {
	endpoint string
	opt      *Options

	mu     sync.Mutex
	closed bool
	client *clientv3.Client
	link   *link
}

// link is an open connection. Its calls fail at once while the endpoint cannot be reached, instead of waiting.
type link struct {
	kv      clientv3.KV
	lease   pb.LeaseClient
	cluster pb.ClusterClient
	watch   pb.WatchClient
	upkeep  pb.MaintenanceClient
}

// open returns the connection; it blocks, for at most dialTimeout, only where a password has to be presented.
func (n *node) open() (*link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	if n.link != nil {
		return n.link, nil
	}
	client, err := clientv3.New(n.config())
	if err != nil {
		return nil, err
	}
	conn := client.ActiveConnection()
	n.client = client
	n.link = &link{
		kv:      clientv3.NewKVFromKVClient(pb.NewKVClient(conn), nil),
		lease:   pb.NewLeaseClient(conn),
		cluster: pb.NewClusterClient(conn),
		watch:   pb.NewWatchClient(conn),
		upkeep:  pb.NewMaintenanceClient(conn),
	}
	return n.link, nil
}

func (n *node) config() clientv3.Config {
	return clientv3.Config{
		Endpoints:            []string{n.endpoint},
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    pingTime,
		DialKeepAliveTimeout: pingTimeout,
		TLS:                  n.opt.TLS,
		Username:             n.opt.Username,
		Password:             n.opt.Password,
		Logger:               zapLogger(n.opt.Log, "client"),
		// One repetition, for a token that has expired; all others are ours, over the endpoints.
		MaxUnaryRetries: 2,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(dial),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: dialTimeout,
			}),
		},
	}
}

// dial keeps idle connections honest: a dead host is noticed after about three seconds also where nothing is sent. A
// proxy named in the environment is not used.
func dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
	}
	return d.DialContext(ctx, "tcp", address)
}

func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.client != nil {
		// Its error is that of the context it has just cancelled.
		_ = n.client.Close()
	}
}
