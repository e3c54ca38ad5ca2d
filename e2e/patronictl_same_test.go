package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// twoCtls are Debian's patronictl, and haven through a link of that name, with one file.
type twoCtls struct {
	c    *testCluster
	file string
	ours string
}

// spoken is what a command printed, and its exit status.
type spoken struct {
	Out, Err string
	Status   int
}

func (w twoCtls) run(program, in string, args ...string) spoken {
	w.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), awaitFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", w.file}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+w.c.plan.Dir, "PGUSER=demo", "PGDATABASE=demo", "PGPASSWORD="+password(w.c), "TZ=UTC", "PAGER=cat")
	cmd.Stdin = strings.NewReader(in)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.c.t.Fatalf("%s %v: %v", program, args, err)
	}
	return spoken{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// stable is a text without what differs by version or moment: rows of tables (3.0 has one column of lags, 4.1 four),
// times, and numbers of versions.
func stable(s spoken) spoken {
	lines := strings.Split(s.Out, "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "+-") || strings.HasPrefix(l, "| ") || strings.HasPrefix(l, "+ ")
	})
	for i, l := range lines {
		l = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?`).ReplaceAllString(l, "TIME")
		lines[i] = strings.TrimRight(l, " ")
	}
	s.Out = strings.Join(lines, "\n")
	return s
}

// TestPatronictlIsSpoken runs the same commands by Debian's patronictl and by haven called patronictl: both print the
// same, and end with the same status.
func TestPatronictlIsSpoken(t *testing.T) {
	c := startCluster(t, 3, "off")
	s := c.await("healthy", c.healthy)
	need(t, "patronictl")
	w := twoCtls{c: c, file: patronictlFile(t, c), ours: filepath.Join(c.plan.Dir, "patronictl")}
	if err := os.Symlink(binary(t), w.ours); err != nil {
		t.Fatal(err)
	}
	leader, standby := s.Leader.Name, other(c.plan.Members, s.Leader.Name)
	later := time.Now().Add(48 * time.Hour).UTC().Format("2006-01-02T15:04:05+00:00")
	for _, k := range []struct {
		args   string
		in     string
		undo   string // of haven's, between the two
		tables bool   // are compared too
	}{
		{args: "dsn demo"}, {args: "dsn demo -r replica -m " + standby}, {args: "dsn demo -m nobody"},
		{args: "show-config demo"}, {args: "history demo", tables: true}, {args: "history demo -f yaml"},
		{args: "query demo -c SELECT+1+AS+a,'x'+AS+b --format pretty", tables: true}, {args: "query demo -c SELECT+pg_is_in_recovery() -r replica"}, {args: "query demo"},
		{args: "reload demo nobody --force"}, {args: "reload demo " + standby, in: "y\n"},
		{args: "restart demo", in: "\nn\n"}, {args: "restart demo " + standby + " --scheduled " + later, in: "n\n"},
		{args: "switchover demo", in: "\n\n\nn\n"}, {args: "switchover demo --leader " + standby + " --force"},
		{args: "switchover demo --leader " + leader + " --candidate " + standby + " --scheduled " + later, in: "n\n"},
		{args: "failover demo --force"}, {args: "failover demo", in: standby + "\nn\n"},
		{args: "flush demo switchover"}, {args: "flush demo restart --force"}, {args: "flush demo " + standby + " restart", in: "n\n"},
		{args: "pause demo", undo: "resume --wait"}, {args: "pause demo"}, {args: "resume demo", undo: "pause --wait"}, {args: "resume demo"},
		{args: "edit-config demo -s ttl=25 --force", undo: "edit-config --set ttl=10 --yes"}, {args: "edit-config demo -s ttl=25 --force"},
		{args: "edit-config demo -q -s ttl=10", in: "y\n", undo: "edit-config --set ttl=25 --yes"},
		{args: "remove demo", in: "no\n"}, {args: "remove demo", in: "demo\nno\n"},
		{args: "reinit demo " + standby, in: "n\n"}, {args: "reinit demo nobody --force"},
	} {
		args := strings.Fields(k.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "+", " ")
		}
		if strings.Contains(k.args, "--scheduled") {
			args = strings.Fields(k.args)
		}
		theirs := w.run("patronictl", k.in, args...)
		if k.undo != "" {
			if out, err := c.haven(strings.Fields(k.undo)...); err != nil {
				t.Fatalf("haven %s: %v: %s", k.undo, err, out)
			}
		}
		ours := w.run(w.ours, k.in, args...)
		if !k.tables {
			theirs, ours = stable(theirs), stable(ours)
		}
		if d := cmp.Diff(theirs, ours); d != "" {
			t.Errorf("patronictl %s (-theirs +ours):\n%s", k.args, d)
		}
	}
}
