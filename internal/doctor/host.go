package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/config"
)

// Host is the machine that is looked at.
type Host struct {
	Root string // before every path that is not the configuration's; empty: /
	Run  func(ctx context.Context, name string, args ...string) (string, error)
	// Unit is the systemd unit that this process belongs to; empty: none.
	Unit string
	// Owner is the user that the data directory has to belong to, as a number; below zero: not known.
	Owner int
}

// runTimeout bounds the programs that are asked.
const runTimeout = 3 * time.Second

// RealHost is the machine that this process runs on; whom the data directory has to belong to is not known.
func RealHost() Host {
	return Host{Run: run, Unit: unitOf(""), Owner: -1}
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.Output()
	return string(out), err
}

// unitOf is the unit of this process, by its control group (systemd.service(5)).
func unitOf(root string) string {
	b, err := os.ReadFile(root + "/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if last := filepath.Base(strings.TrimSpace(line)); strings.HasSuffix(last, ".service") && !strings.HasPrefix(last, "user@") {
			return last
		}
	}
	return ""
}

// Local examines the own host: permissions, ports, the distribution's servers, the unit. It changes nothing.
func Local(ctx context.Context, h Host, n *config.Node) []Finding {
	var out []Finding
	add := func(code string, s Severity, text, mend string) {
		out = append(out, Finding{Code: code, Severity: s, Member: n.Name, Text: text, Mend: mend})
	}
	for _, f := range n.BusyPorts() {
		what, mend, _ := strings.Cut(f.Text, ": ")
		add("port_conflict", Critical, what, mend)
	}
	permissions(h, n, add)
	if n.Postgres != nil {
		h.foreign(ctx, n, add)
		h.killMode(ctx, add)
	}
	return out
}

type adder func(code string, s Severity, text, mend string)

func permissions(h Host, n *config.Node, add adder) {
	tell := func(path string, forbidden os.FileMode, what, mode string) {
		info, err := os.Stat(path)
		if path == "" || err != nil || info.Mode().Perm()&forbidden == 0 {
			return
		}
		add("permissions", Warning, fmt.Sprintf("%s %s can be read by others (mode %04o)", what, path, info.Mode().Perm()), "chmod "+mode+" "+path)
	}
	if p := n.Postgres; p != nil {
		tell(p.DataDir, 0o027, "the data directory", "700") // PostgreSQL itself refuses to start with more than 0750
		tell(p.PgPass, 0o077, "the password file", "600")
		tell(p.Superuser.SSLKey, 0o007, "the key", "600")
		tell(p.Replication.SSLKey, 0o007, "the key", "600")
		if info, err := os.Stat(p.DataDir); err == nil && h.Owner >= 0 {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != h.Owner {
				add("permissions", Critical, fmt.Sprintf("the data directory %s belongs to the user %d, and PostgreSQL runs as %d", p.DataDir, st.Uid, h.Owner), fmt.Sprintf("chown -R %d %s, after making sure that it is the right directory", h.Owner, p.DataDir))
			}
		}
	}
	tell(n.Dir(), 0o077, "the state directory", "700")
	for _, key := range []string{n.RESTAPI.KeyFile, n.Etcd.Key, n.Etcd.PeerTLS.KeyFile, n.CTL.KeyFile} {
		tell(key, 0o007, "the key", "600")
	}
	if inlineSecrets(n) {
		tell(n.File, 0o007, "the configuration with passwords in it", "640")
	}
}

// inlineSecrets tells whether a secret stands in the configuration file itself.
func inlineSecrets(n *config.Node) bool {
	if n.File == "" {
		return false
	}
	for path := range secretsOf(n) {
		if strings.HasPrefix(n.Origins[path+".password"], n.File) {
			return true
		}
	}
	return false
}

// foreign looks for servers of Debian's packages (pg_lsclusters(1), start.conf) and of Red Hat's (the unit postgresql.service).
func (h Host) foreign(ctx context.Context, n *config.Node, add adder) {
	ours, _ := filepath.EvalSymlinks(n.Postgres.DataDir)
	out, _ := h.Run(ctx, "pg_lsclusters", "--no-header") // not there on other distributions
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		version, name, port, status, dir := f[0], f[1], f[2], f[3], f[5]
		unit := fmt.Sprintf("postgresql@%s-%s", version, name)
		real, err := filepath.EvalSymlinks(dir)
		same := err == nil && real == ours
		start := h.startMode(version, name)
		switch {
		case same && start == "auto":
			add("foreign_server", Critical, fmt.Sprintf("the distribution starts this database at boot (cluster %s/%s, start.conf: auto): outside of Haven it would accept writes without leading", version, name),
				fmt.Sprintf("echo manual > /etc/postgresql/%s/%s/start.conf; systemctl disable %s", version, name, unit))
		case !same && strings.HasPrefix(status, "online"):
			add("foreign_server", Warning, fmt.Sprintf("the distribution's own server runs beside Haven's: cluster %s/%s on port %s, in %s", version, name, port, dir),
				fmt.Sprintf("if nobody needs it: systemctl disable --now %s; echo manual > /etc/postgresql/%s/%s/start.conf", unit, version, name))
		}
	}
	if state, err := h.Run(ctx, "systemctl", "show", "-p", "UnitFileState,ActiveState,FragmentPath", "postgresql.service"); err == nil && out == "" {
		if strings.Contains(state, "UnitFileState=enabled") || strings.Contains(state, "ActiveState=active") {
			add("foreign_server", Warning, "the distribution's unit postgresql.service is enabled or runs", "if its database is not needed: systemctl disable --now postgresql")
		}
	}
}

// startMode is auto, manual or disabled; empty: it does not say.
func (h Host) startMode(version, name string) string {
	b, err := os.ReadFile(filepath.Join(h.Root, "/etc/postgresql", version, name, "start.conf"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return ""
}

// KillMode is that of the unit which this process belongs to (systemd.kill(5)); empty: there is none, or it is not known.
func (h Host) KillMode(ctx context.Context) string {
	if h.Unit == "" {
		return ""
	}
	out, err := h.Run(ctx, "systemctl", "show", "-p", "KillMode", "--value", h.Unit)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// killMode: with any other mode than process, systemd ends PostgreSQL when the agent ends (systemd.kill(5)).
func (h Host) killMode(ctx context.Context, add adder) {
	if mode := h.KillMode(ctx); mode != "" && mode != "process" {
		add("kill_mode", Warning, fmt.Sprintf("KillMode of %s is %s: systemd ends PostgreSQL whenever the agent ends", h.Unit, mode),
			"systemctl edit "+h.Unit+": [Service] KillMode=process; then systemctl daemon-reload")
	}
}
