package etcd

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every connection between members gets a limit, or members of a cluster whose network was cut find each other late.
func TestConnectionsBetweenMembersAreBounded(t *testing.T) {
	servers := startAll(t, memberOptions(t, "bounded", 3))
	awaitReady(t, servers...)
	ports := servers[0].peerPorts()
	if len(ports) != 3 {
		t.Fatalf("ports of members: %v", ports)
	}
	unbounded := map[uint64]bool{} // inodes of connections that have never been seen with a limit
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		bounded, older := 0, 0
		now := map[uint64]bool{}
		for _, fd := range streams(ports) {
			var is unix.Stat_t
			limit, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			idle, errIdle := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
			switch {
			case errors.Join(err, errIdle, unix.Fstat(fd, &is)) != nil: // it was closed meanwhile
			case limit == 5000 && idle == 5:
				bounded++
			default:
				now[is.Ino] = true
				if unbounded[is.Ino] {
					older++
				}
			}
		}
		// Two streams for each ordered pair, and both of their ends are of this process. Short connections come and go.
		if bounded >= 3*2*2*2 && older == 0 && time.Since(began) > 2*streamLook {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d connections are bounded, %d of the last look are not", bounded, older)
		}
		if time.Since(began) > streamLook && len(unbounded) == 0 {
			unbounded = now
		}
	}
}
