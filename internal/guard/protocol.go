// Package guard is the process that ends a server whose lease has ended, whoever else is dead, hung, stopped or starved.
//
// It is a process of its own, in a session of its own, and does nothing else. It is the parent of the postmaster that
// the agent asks it to start, and of what that leaves behind; it tells how the postmaster ended; and it holds one
// deadline, an instant of CLOCK_BOOTTIME. When that passes it kills the postmaster, then every process below itself,
// then every process of the server that stands in the data directory, again and again until none is left. It guarantees
// that nothing but a later deadline or a disarming by the present agent changes that: neither signals, nor the end of
// the agent, nor a closed connection. It keeps no connection but its socket, and decides nothing: until when a server
// may be writable, and whether it is a standby that needs no deadline, is the agent's business.
//
// # Protocol, version 1
//
// The socket is guard.sock in the node's state directory (SOCK_STREAM, mode 0600). Every request is one line of JSON, a
// Request, and is answered by one line of JSON, a Reply, in the order of the requests. A request of another version, or
// one that cannot be read, is answered by an error, and the latter ends the connection.
//
//	hello   the connection becomes that of the agent; the one before it may only ask for the state from now on
//	state   nothing but the answer
//	start   starts a server (Command); refused while one runs, or processes of one are left, or without a deadline in force
//	        for one that must be armed
//	arm     the server (Server) is to be ended at Deadline. Within one Generation a deadline only moves forward; an older
//	        generation is refused, except from a connection that has armed nothing yet. A server that somebody else
//	        started is watched from then on. With a Watchdog the device is opened and fed, and the server is ended before
//	        the device would reset the host; it is let go of when no deadline is in force and no process is left to end.
//	disarm  there is no deadline any more
//	kill    the deadline has passed now
//	become  the guard goes on as the agent's program: the same process with the same children, deadline and watchdog. The
//	        connection breaks, and the answer is that of the next hello; an answer on this one is a refusal. A guard that
//	        does not tell its Program does not know this request.
//	bye     the guard ends, if no process of a server is left; otherwise nothing
//
// A guard to which no agent is connected, and which has no server, ends after a while by itself.
package guard

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/processes"
)

// Protocol is the version of the protocol.
const Protocol = 1

// Operations.
const (
	opHello  = "hello"
	opState  = "state"
	opStart  = "start"
	opArm    = "arm"
	opDisarm = "disarm"
	opKill   = "kill"
	opBecome = "become"
	opBye    = "bye"
)

// Request is what an agent asks.
type Request struct {
	Protocol   int                `json:"protocol"`
	Op         string             `json:"op"`
	Command    *processes.Command `json:"command,omitempty"`
	Server     *processes.Server  `json:"server,omitempty"`
	Deadline   cluster.Instant    `json:"deadline,omitempty"` // of CLOCK_BOOTTIME, in nanoseconds
	Generation int64              `json:"generation,omitempty"`
	Watchdog   *Watchdog          `json:"watchdog,omitempty"` // to be fed with this deadline; nil: none
	Reason     string             `json:"reason,omitempty"`   // of a kill
}

// Reply is the answer.
type Reply struct {
	Protocol int    `json:"protocol"`
	Error    string `json:"error,omitempty"`
	// TakenOver tells that another agent has said hello since.
	TakenOver bool `json:"taken_over,omitempty"`
	// Ends tells that the guard ends now.
	Ends  bool  `json:"ends,omitempty"`
	State State `json:"state"`
}

// State is what a guard knows.
type State struct {
	PID      int               `json:"pid"`               // the guard's
	Program  string            `json:"program,omitempty"` // the file that it runs: device, inode
	Server   *Running          `json:"server,omitempty"`  // the postmaster that runs
	Deadline cluster.Instant   `json:"deadline"`          // 0: disarmed
	Target   *processes.Server `json:"target,omitempty"`  // the server that the deadline is for
	Exit     *Exit             `json:"exit,omitempty"`    // the last postmaster that ended
	Killing  bool              `json:"killing,omitempty"` // the deadline has passed, and not all processes are gone
	Killed   *Killed           `json:"killed,omitempty"`  // the last time that it had to end a server; there while Killing
	// Memory and OOM tell whether the guard's memory is locked, and whether the kernel spares it when memory runs out;
	// otherwise, why not.
	Memory string `json:"memory"`
	OOM    string `json:"oom"`
	// Watchdog tells whether a watchdog is open, or why not; empty: none is wanted.
	Watchdog string `json:"watchdog,omitempty"`
}

// Held is what State says of a protection that is in force.
const Held = "held"

// Running is a postmaster.
type Running struct {
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`   // when the guard began to watch it
	Adopted bool      `json:"adopted"` // somebody else started it
}

// Exit is the end of a postmaster.
type Exit struct {
	PID    int       `json:"pid"`
	Status string    `json:"status"` // "exit status 1", "signal: killed"
	At     time.Time `json:"at"`
}

// Killed is the end that the guard made of a server.
type Killed struct {
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Verified time.Time `json:"verified"` // when none of its processes was left; zero: not yet
	Left     string    `json:"left,omitempty"`
}
