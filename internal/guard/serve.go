package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds a request: the longest holds a server's environment.
const maxLine = 1 << 20

// acceptPause is how long to wait after a connection could not be accepted.
const acceptPause = 10 * time.Millisecond

// accept serves every connection; the process ends with it.
func accept(l *net.UnixListener, c *core) {
	for id := int64(1); ; id++ {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return // the guard ends
		}
		if err != nil { // descriptors or memory are short; who waits is served when they are not
			time.Sleep(acceptPause)
			continue
		}
		go serveConnection(conn, id, c)
	}
}

func serveConnection(conn *net.UnixConn, id int64, c *core) {
	defer conn.Close()
	cred, err := peer(conn)
	if err != nil || !ours(cred) {
		return
	}
	defer func() { c.left <- id }()
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	out := json.NewEncoder(conn)
	for lines.Scan() {
		r := request{connection: id, pid: int(cred.Pid), reply: make(chan Reply, 1)}
		if err := json.Unmarshal(lines.Bytes(), &r.Request); err != nil {
			_ = out.Encode(Reply{Protocol: Protocol, Error: "this is no request: " + err.Error()})
			return
		}
		c.requests <- r
		if out.Encode(<-r.reply) != nil {
			return
		}
	}
}

// ours tells whether the peer is of our own user, or root. The socket's mode says so too, where the file system keeps it.
func ours(cred *unix.Ucred) bool { return cred.Uid == 0 || int(cred.Uid) == os.Geteuid() }

func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return cred, got
}
