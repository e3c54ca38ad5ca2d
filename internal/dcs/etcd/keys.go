package etcd

import (
	"fmt"
	"strconv"
	"strings"
)

// Names of keys below the prefix (dcs-layout, 2). Those under haven/ are ours; Patroni ignores them.
const (
	keyInitialize   = "initialize"
	keyConfig       = "config"
	keyLeader       = "leader"
	keyMembers      = "members/"
	keyStatus       = "status"
	keyLegacyOptime = "optime/leader"
	keyFailover     = "failover"
	keySync         = "sync"
	keyHistory      = "history"
	keyFailsafe     = "failsafe"
	keyTerm         = "haven/term"
	keyHold         = "haven/hold"
	keyEvents       = "haven/events/"
)

// keepEvents is how many events are kept.
const keepEvents = 100

// eventKey has twenty digits, all that a uint64 needs, so that keys sort as their terms do.
func eventKey(term uint64) string { return fmt.Sprintf("%s%020d", keyEvents, term) }

func eventTerm(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, keyEvents)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// memberName is the member of a key members/<name>; deeper keys are none.
func memberName(name string) (string, bool) {
	m, ok := strings.CutPrefix(name, keyMembers)
	return m, ok && m != "" && !strings.Contains(m, "/")
}

func (c *Client) key(name string) string { return c.prefix + name }
