package postgres

import (
	"os/user"
	"strconv"
	"strings"
)

// environment is what PostgreSQL's programs get to see: nothing that configures us, that systemd meant for us, or that
// would turn libpq or initdb aside (PGHOST, PGDATA …). PG_MALLOC_ARENA_MAX becomes MALLOC_ARENA_MAX, as in Patroni.
func (i *Instance) environment(extra ...string) []string {
	base := i.opt.Env
	if base == nil {
		base = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}
	}
	var env []string
	for _, kv := range base {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "PG_MALLOC_ARENA_MAX":
			env = append(env, "MALLOC_ARENA_MAX="+value)
		case !hiddenFromChildren(name):
			env = append(env, kv)
		}
	}
	if a := i.opt.RunAs; a != nil && a.Home != "" {
		env = append(env, "HOME="+a.Home, "USER="+a.Name, "LOGNAME="+a.Name)
	}
	return append(env, extra...)
}

func hiddenFromChildren(name string) bool {
	for _, prefix := range []string{"PATRONI_", "HAVEN_", "KUBERNETES_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	// libpq's variables have no underscore (PGHOST); the server's own have one (PG_OOM_ADJUST_FILE).
	libpq := strings.HasPrefix(name, "PG") && !strings.Contains(name, "_")
	return libpq || name == "NOTIFY_SOCKET" || name == "LISTEN_FDS" || name == "LISTEN_PID"
}

// groups are the supplementary groups of the account; Debian's server key is readable by such a group (ssl-cert).
func (a *Account) groups() []uint32 {
	gids := []uint32{uint32(a.GID)}
	u, err := user.LookupId(strconv.Itoa(a.UID))
	if err != nil {
		return gids
	}
	ids, err := u.GroupIds()
	if err != nil {
		return gids
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && int(n) != a.GID {
			gids = append(gids, uint32(n))
		}
	}
	return gids
}
