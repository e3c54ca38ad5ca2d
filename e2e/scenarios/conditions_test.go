package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// await waits until what a step says is so.
func (w *world) await(p step, most time.Duration) error {
	var last error
	for begun := time.Now(); time.Since(begun) < most; time.Sleep(100 * time.Millisecond) {
		if last = w.holds(p); last == nil {
			return nil
		}
	}
	return fmt.Errorf("not within %s: %w", most, last)
}

// always wants what a step says to be so all the time.
func (w *world) always(p step, d time.Duration) error {
	begun := time.Now()
	for ; time.Since(begun) < d; time.Sleep(100 * time.Millisecond) {
		if err := w.holds(p); err != nil {
			return fmt.Errorf("after %.1f s: %w", time.Since(begun).Seconds(), err)
		}
	}
	return nil
}

// holds tells whether what a step says is so, as nil, or how it is instead.
func (w *world) holds(p step) error {
	subject, rest, _ := strings.Cut(p.words, " ")
	if rest, found := strings.CutPrefix(p.words, "no "); found {
		q := p
		q.words = rest
		if w.holds(q) == nil {
			return errors.New("it is so")
		}
		return nil
	}
	switch subject {
	case "leader":
		return w.leads(rest)
	case "leads": // "leads among NAMES"
		var last error
		for _, n := range strings.Fields(strings.TrimPrefix(rest, "among ")) {
			if last = w.leads(n); last == nil {
				return nil
			}
		}
		return last
	case "sync":
		return w.synchronous(rest)
	case "log":
		return w.logged(rest)
	case "key":
		return w.key(rest)
	case "file":
		return w.fileIs(rest)
	case "fifo":
		name, text, _ := strings.Cut(rest, " ")
		return contains(w.fifos[name].read(), text)
	case "GET":
		return w.get(rest, p.lines())
	case "sql":
		return w.answers(rest)
	case "patronictl", "haven":
		return w.tool(step{verb: subject, words: rest, block: p.block})
	}
	return w.memberIs(w.member(subject), rest)
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%q does not stand in %q", part, text[max(0, len(text)-3000):])
	}
	return nil
}

// leads: "leader NAME" leads and its server says so; "leader none", "leader none in CLUSTER": the key is not there.
func (w *world) leads(words string) error {
	name, in, _ := strings.Cut(words, " in ")
	c := w.cluster(in)
	if name != "none" {
		c = w.member(name).cluster
	}
	s := c.snapshot()
	switch {
	case s == nil:
		return errors.New("etcd cannot be read")
	case name == "none" && s.Leader == nil:
		return nil
	case s.Leader == nil:
		return errors.New("nobody leads")
	case s.Leader.Name != name:
		return fmt.Errorf("%s leads", s.Leader.Name)
	}
	m, _ := s.Member(name)
	if m.State != cluster.StateRunning || !m.Is(cluster.RolePrimary) && !m.Is(cluster.RoleStandbyLeader) {
		return fmt.Errorf("%s has the key and is %s, %s", name, m.Role, m.State)
	}
	return nil
}

// synchronous: "sync NAMES" are the standbys in /sync, "sync none".
func (w *world) synchronous(names string) error {
	s := w.cluster("").snapshot()
	if s == nil || !s.Sync.Active() {
		return errors.New("/sync is not in force")
	}
	got := strings.Join(s.Sync.Standbys, " ")
	if got != names && (names != "none" || got != "") {
		return fmt.Errorf("/sync names %q", got)
	}
	return nil
}

// logged: "log MEMBER TEXT" stands in what the member has written since its mark; ★ before the text says that it is word for word
// what tools look for.
func (w *world) logged(words string) error {
	name, text, _ := strings.Cut(words, " ")
	m := w.member(name)
	b, err := os.ReadFile(w.logOf(m))
	if err != nil {
		return err
	}
	return contains(string(b[m.mark:]), strings.TrimPrefix(text, "★ "))
}

// key: "key NAME contains TEXT", "key NAME is TEXT", "key NAME absent"; NAME may begin with a cluster's name and a colon.
func (w *world) key(words string) error {
	name, rest, _ := strings.Cut(words, " ")
	in, bare, found := strings.Cut(name, ":")
	if !found {
		in, bare = "", name
	}
	value, there, err := w.etcdGet("/service/" + w.cluster(in).scope + "/" + bare)
	how, text, _ := strings.Cut(rest, " ")
	switch {
	case err != nil:
		return err
	case how == "absent" && there:
		return fmt.Errorf("it is %q", value)
	case how == "absent":
		return nil
	case !there:
		return errors.New("it is not there")
	case how == "is" && value != text:
		return fmt.Errorf("it is %q", value)
	}
	return contains(tight(value), tight(text))
}

// fileIs: "file NAME contains TEXT", "file NAME is TEXT", "file NAME exists"; the name is relative to the story's directory.
func (w *world) fileIs(words string) error {
	name, rest, _ := strings.Cut(words, " ")
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.dir, name)
	}
	how, text, _ := strings.Cut(rest, " ")
	if how == "exists" {
		found, err := filepath.Glob(path)
		if err == nil && len(found) == 0 {
			return errors.New("it is not there")
		}
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if how == "is" && strings.TrimSpace(string(b)) != text {
		return fmt.Errorf("it is %q", b)
	}
	return contains(string(b), text)
}

// get: "GET MEMBER PATH STATUS"; the block are texts that the answer has, or with "not " before them has not.
func (w *world) get(words string, texts []string) error {
	f := strings.Fields(words)
	code, body, err := w.site.request(http.MethodGet, w.site.scheme()+"://"+w.member(f[0]).api+f[1], "")
	if err != nil {
		return err
	}
	if len(f) > 2 && strconv.Itoa(code) != f[2] {
		return fmt.Errorf("%d %s", code, body)
	}
	body = tight(body)
	for _, text := range texts {
		text = tight(text)
		if part, not := strings.CutPrefix(text, "not "); not {
			if strings.Contains(body, part) {
				return fmt.Errorf("%q stands in %s", part, body)
			}
			continue
		}
		if err := contains(body, text); err != nil {
			return err
		}
	}
	return nil
}

// tight takes the blanks out of a JSON text that mean nothing.
func tight(text string) string {
	return strings.NewReplacer(`": `, `":`, `, "`, `,"`, `, {`, `,{`).Replace(text)
}

// answers: "sql MEMBER QUERY => VALUE".
func (w *world) answers(words string) error {
	who, rest, _ := strings.Cut(words, " ")
	query, want, _ := cutLast(rest, " =>") // what follows may be nothing
	got, err := w.sql(w.member(who), query)
	if err == nil && got != strings.TrimSpace(want) {
		err = fmt.Errorf("it is %q", got)
	}
	return err
}

// memberIs: "NAME streams from NAME", "NAME is ROLE", "NAME is in state STATE", "NAME ended STATUS", "NAME serves", "NAME is down".
func (w *world) memberIs(m *member, words string) error {
	if from, found := strings.CutPrefix(words, "streams from "); found {
		query := fmt.Sprintf("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '%s'", m.name)
		if err := w.answers(from + " " + query + " => 1"); err != nil {
			return err
		}
		return w.get(m.name+" /patroni 200", []string{`"state": "running"`, `"replication_state": "streaming"`}) // its agent knows of it, too
	}
	if status, found := strings.CutPrefix(words, "ended "); found {
		return m.endedWith(status)
	}
	switch words {
	case "serves":
		_, err := w.sql(m, "SELECT 1")
		return err
	case "is down":
		if n := len(w.processes(m)); n > 0 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	}
	s := m.cluster.snapshot()
	if s == nil {
		return errors.New("etcd cannot be read")
	}
	k, ok := s.Member(m.name)
	state, aboutState := strings.CutPrefix(words, "is in state ")
	switch {
	case !ok:
		return errors.New("it has no member key")
	case aboutState && string(k.State) != state:
		return fmt.Errorf("its state is %q", k.State)
	case !aboutState && string(k.Role) != strings.TrimPrefix(words, "is "):
		return fmt.Errorf("its role is %q, its state %q", k.Role, k.State)
	}
	return nil
}

func (m *member) endedWith(status string) error {
	select {
	case <-m.ended:
	default:
		return errors.New("it runs")
	}
	if code := strconv.Itoa(m.cmd.ProcessState.ExitCode()); code != status {
		return fmt.Errorf("it ended with %s", code)
	}
	return nil
}

// etcdGet reads one key by etcd's JSON gateway, so that what is compared is what stands there.
func (w *world) etcdGet(key string) (value string, there bool, err error) {
	body, err := w.etcdAsk("range", key)
	if err != nil {
		return "", false, err
	}
	var answer struct {
		KVs []struct{ Value []byte } `json:"kvs"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return "", false, fmt.Errorf("%w: %s", err, body)
	}
	if len(answer.KVs) == 0 {
		return "", false, nil
	}
	return string(answer.KVs[0].Value), true, nil
}

func (w *world) etcdDelete(key string) error {
	_, err := w.etcdAsk("deleterange", key)
	return err
}

func (w *world) etcdAsk(what, key string) (string, error) {
	query, err := json.Marshal(map[string][]byte{"key": []byte(key)})
	if err != nil {
		return "", err
	}
	_, body, err := w.site.request(http.MethodPost, w.site.scheme()+"://"+w.etcd.address+"/v3/kv/"+what, string(query))
	return body, err
}

// fifo gathers what is written into a named pipe.
type fifo struct {
	mu   sync.Mutex
	text []byte
}

func (f *fifo) read() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(slices.Clone(f.text))
}

func (w *world) openFifo(name string) *fifo {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		w.t.Fatal(err)
	}
	give(w.t, w.account(), path)
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // so that it has a reader and a writer for as long as the story goes
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { pipe.Close() })
	f := &fifo{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := pipe.Read(b)
			if err != nil {
				return
			}
			f.mu.Lock()
			f.text = append(f.text, b[:n]...)
			f.mu.Unlock()
		}
	}()
	return f
}
