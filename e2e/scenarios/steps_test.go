package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// play carries a story out.
func play(t *testing.T, s *site, st story) {
	t.Helper()
	w := newWorld(t, s)
	begun := time.Now()
	for _, p := range st.steps {
		began := time.Now()
		w.do(st.name, p)
		if took := time.Since(began); took > 3*time.Second {
			t.Logf("%s.txt:%d: %s: %.1f s", st.name, p.line, p, took.Seconds())
		}
	}
	t.Logf("%.1f s: %s", time.Since(begun).Seconds(), strings.TrimSpace(st.shows))
}

// do carries one step out.
func (w *world) do(name string, p step) {
	w.t.Helper()
	fail := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatalf("%s.txt:%d: %s\n%v", name, p.line, p, err)
		}
	}
	p.words, p.block = w.fill(p.words), w.fill(p.block)
	if w.prepare(p) {
		return
	}
	switch p.verb {
	case "await":
		fail(w.await(p, limit))
	case "check":
		fail(w.holds(p))
	case "always":
		length, words, _ := strings.Cut(p.words, " ")
		d, err := time.ParseDuration(length)
		fail(err)
		p.words = words
		fail(w.always(p, d))
	case "sql":
		who, text, _ := strings.Cut(p.words, " ")
		_, err := w.sql(w.member(who), text+"\n"+p.block)
		fail(err)
	case "let":
		variable, rest, _ := strings.Cut(p.words, " = ")
		who, text, _ := strings.Cut(rest, " ")
		value, err := w.sql(w.member(who), text)
		fail(err)
		w.values[variable] = value
	case "POST", "PATCH", "PUT", "DELETE":
		fail(w.ask(p))
	case "patronictl", "haven":
		fail(w.tool(p))
	default:
		fail(w.trouble(p))
	}
}

// prepare does the steps that make files and members.
func (w *world) prepare(p step) bool {
	w.t.Helper()
	words := strings.Fields(p.words)
	switch p.verb {
	case "members":
		in := ""
		if strings.HasSuffix(words[0], ":") {
			in, words = strings.TrimSuffix(words[0], ":"), words[1:]
		}
		for _, n := range words {
			w.add(n, in)
		}
	case "etcd": // of this story alone
		w.etcd = w.site.startEtcd(w.t)
	case "dcs":
		merge(w.cluster(p.words).dcs, w.yaml(p.block))
	case "config":
		if p.words == "all" {
			words = w.names
		}
		for _, n := range words {
			merge(w.member(n).config, w.yaml(p.block))
			w.configure(w.member(n))
		}
	case "script":
		w.write(p.words, "#!/bin/sh\n"+p.block, 0o755)
	case "write":
		w.write(p.words, p.block, 0o644)
	case "directory":
		dir := filepath.Join(w.dir, p.words)
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.t.Fatal(err)
		}
		give(w.t, w.account(), dir)
	case "remove":
		for _, f := range words {
			if err := os.RemoveAll(filepath.Join(w.dir, f)); err != nil {
				w.t.Fatal(err)
			}
		}
	case "shell": // as the nodes' user
		if out, err := w.command("/bin/sh", "-ec", p.words+"\n"+p.block).CombinedOutput(); err != nil {
			w.t.Fatalf("shell: %v: %s", err, out)
		}
	case "fifo":
		w.fifos[p.words] = w.openFifo(p.words)
	case "mark":
		for _, m := range w.members {
			if i, err := os.Stat(w.logOf(m)); err == nil {
				m.mark = i.Size()
			}
		}
	default:
		return false
	}
	return true
}

// trouble starts, stops, breaks and mends.
func (w *world) trouble(p step) error {
	words := strings.Fields(p.words)
	switch p.verb {
	case "start":
		for _, n := range words {
			w.run(w.member(n))
		}
		return nil
	case "environment": // of the start that follows
		who, variable, _ := strings.Cut(p.words, " ")
		w.run(w.member(who), variable)
		return nil
	case "stop":
		for _, n := range words {
			w.signal(w.member(n), "agent", syscall.SIGTERM)
		}
		for _, n := range words {
			w.awaitEnd(w.member(n))
		}
		return nil
	case "unset":
		return w.etcdDelete("/service/" + w.cluster("").scope + "/" + p.words)
	case "writer":
		who, text, _ := strings.Cut(p.words, " ")
		w.writer(w.member(who), text)
		return nil
	case "hold": // a session of that server, so that it cannot stop
		return w.hold(w.member(p.words))
	case "reload":
		w.signal(w.member(p.words), "agent", syscall.SIGHUP)
		return nil
	}
	sig, known := map[string]syscall.Signal{"kill": syscall.SIGKILL, "freeze": syscall.SIGSTOP, "thaw": syscall.SIGCONT, "shut": syscall.SIGINT}[p.verb]
	switch {
	case !known:
		return fmt.Errorf("there is no such step")
	case p.words == "etcd":
		w.etcd.signal(w.t, sig)
	case p.verb == "freeze" && words[0] == "next":
		w.freezeNext(w.member(words[1]))
		return nil
	case len(words) != 2 || !slices.Contains([]string{"agent", "postmaster", "server", "guard", "all"}, words[0]):
		return fmt.Errorf("say %s agent|postmaster|server|guard|all MEMBER, or %s etcd", p.verb, p.verb)
	default:
		m := w.member(words[1])
		w.signal(m, words[0], sig)
		if p.verb == "kill" && (words[0] == "agent" || words[0] == "all") {
			w.awaitEnd(m)
		}
	}
	return nil
}

// fill puts the values of $NAMES in, and times for $NOW+SECONDS.
func (w *world) fill(text string) string {
	text = regexp.MustCompile(`\$NOW([+-][0-9]+)s`).ReplaceAllStringFunc(text, func(s string) string {
		seconds, _ := strconv.Atoi(s[len("$NOW") : len(s)-1])
		return time.Now().Add(time.Duration(seconds) * time.Second).Format(time.RFC3339)
	})
	return regexp.MustCompile(`\$[A-Za-z][A-Za-z0-9]*(\.(sql|api|host|port|data|scope))?`).ReplaceAllStringFunc(text, func(s string) string {
		if v, ok := w.values[s[1:]]; ok {
			return v
		}
		if v, ok := w.values[strings.TrimSuffix(s[1:], filepath.Ext(s))]; ok {
			return v + filepath.Ext(s)
		}
		return s
	})
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// ask sends a request: METHOD MEMBER PATH BODY; the block is the status, and the answer's text as it must be.
func (w *world) ask(p step) error {
	who, rest, _ := strings.Cut(p.words, " ")
	path, body, _ := strings.Cut(rest, " ")
	code, answer, err := w.site.request(p.verb, w.site.scheme()+"://"+w.member(who).api+path, body)
	if err != nil {
		return err
	}
	status, text, _ := strings.Cut(strings.TrimSpace(p.block), " ")
	got := strconv.Itoa(code) + " " + strings.TrimSpace(answer)
	if part, found := strings.CutSuffix(text, "…"); found && strings.HasPrefix(got, status+" "+part) {
		return nil
	}
	if got != strings.TrimSpace(status+" "+text) && (text != "" || strconv.Itoa(code) != status) {
		return fmt.Errorf("the answer is %q", got)
	}
	return nil
}

// tool runs haven, or haven as patronictl, with the file of the first member; the block is a status (0 if it is left out), and
// texts that the output has.
func (w *world) tool(p step) error {
	args := []string{"-c", w.file(w.members[w.names[0]])}
	if p.verb == "patronictl" {
		args = append([]string{"patronictl"}, args...)
	}
	cmd := w.command(os.Getenv("HAVEN_E2E_BINARY"), append(args, words(p.words)...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return err
	}
	return w.output(p, string(out), cmd.ProcessState.ExitCode())
}

func (w *world) output(p step, out string, status int) error {
	want := 0
	for _, line := range p.lines() {
		if n, found := strings.CutPrefix(line, "status "); found {
			want, _ = strconv.Atoi(n)
			continue
		}
		if !strings.Contains(out, line) {
			return fmt.Errorf("%q does not stand in:\n%s", line, out)
		}
	}
	if status != want {
		return fmt.Errorf("status %d:\n%s", status, out)
	}
	return nil
}

// words parts a line at blanks, but not those between '…'.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}
