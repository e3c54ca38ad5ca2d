package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres/durable"
)

// pledges hold this member's word not to take leadership (ha.Pledge). A word that was given outlives the agent.
type pledges struct {
	path string

	mu     sync.Mutex // never held while a disk is waited for
	given  ha.Pledge
	giving bool // a word is just being written down: it binds, and no attempt at leadership may begin
	claims bool // an attempt at leadership is under way, or has succeeded: no word is given
}

// pledgeFile is the word as it stands on disk.
type pledgeFile struct {
	Boot  string          `json:"boot"` // the host's boot that Until is of
	To    string          `json:"to"`
	Until cluster.Instant `json:"until"`
	Left  time.Duration   `json:"left"` // until then, when it was given
}

// pledgeName is the file in the node's state directory.
const pledgeName = "failsafe.pledge"

// unreadPledge is how long a word counts that cannot be read any more.
const unreadPledge = 5 * time.Minute

// openPledges reads the word that an earlier agent gave. After a restart of the host it counts for its whole length again,
// since nobody can tell how much of it had passed.
func openPledges(dir string, log *slog.Logger) *pledges {
	p := &pledges{path: filepath.Join(dir, pledgeName)}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p
	}
	var f pledgeFile
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	switch {
	case err != nil:
		log.Error("the word that was given to a leader without the store cannot be read, and counts for a while", "file", p.path, "for", unreadPledge, "error", err)
		p.given = ha.Pledge{To: "a leader that is not known any more", Until: bootclock.Now().Add(unreadPledge)}
	case f.Boot == bootID():
		p.given = ha.Pledge{To: f.To, Until: f.Until}
	default:
		p.given = ha.Pledge{To: f.To, Until: bootclock.Now().Add(f.Left)}
	}
	return p
}

// bootID names the present boot of the host (random(4)); empty: not known, as if it were another.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (p *pledges) now() ha.Pledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.given
}

// give gives the word for ttl from now, unless an attempt at leadership is under way. It is on disk before it counts for
// who asked; for this member it binds from the first moment.
func (p *pledges) give(to string, ttl time.Duration) error {
	now := bootclock.Now()
	p.mu.Lock()
	if p.claims || p.giving {
		p.mu.Unlock()
		return ha.ErrPledgeRefused
	}
	p.giving = true
	p.given = ha.Pledge{To: to, Until: max(p.given.Until, now.Add(ttl))}
	f := pledgeFile{Boot: bootID(), To: to, Until: p.given.Until, Left: p.given.Until.Sub(now)}
	p.mu.Unlock()
	text, err := json.Marshal(f)
	if err == nil {
		_, err = durable.Replace(p.path, text, 0o600, func(string) error { return nil })
	}
	p.mu.Lock()
	p.giving = false
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("give a word to %s: %w", to, err)
	}
	return nil
}

// claim begins an attempt at leadership, unless a word is in force.
func (p *pledges) claim() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given.Binds(bootclock.Now()) {
		return fmt.Errorf("this member has given its word to %s, which leads without the store", p.given.To)
	}
	p.claims = true
	return nil
}

// hold begins to hold a leadership that the store says is ours: no word is given any more. What was given before may still
// keep from a promotion (ha.Decide).
func (p *pledges) hold() {
	p.mu.Lock()
	p.claims = true
	p.mu.Unlock()
}

// settle ends an attempt.
func (p *pledges) settle() {
	p.mu.Lock()
	p.claims = false
	p.mu.Unlock()
}

// Pledge gives this member's word to a leader that cannot reach the store, not to take leadership for ttl, or for the own
// ttl where that is longer. It returns how far this member has come; 0: its server does not tell. Errors:
// ha.ErrFailsafeOff, ha.ErrPledgeRefused, those of writing the word down.
func (a *Agent) Pledge(to string, ttl time.Duration) (cluster.LSN, error) {
	s := a.Status()
	if !s.Dynamic.FailsafeMode {
		return 0, ha.ErrFailsafeOff
	}
	if s.Holds || s.MayWrite || !ha.Follows(s.Snapshot, s.LastLeader, to) {
		return 0, ha.ErrPledgeRefused
	}
	if err := a.pledges.give(to, max(ttl, s.Dynamic.TTL)); err != nil {
		return 0, err
	}
	a.log.Info("gave a leader that cannot reach the store the word not to take its place", "leader", to)
	a.Wake()
	if s.Probe == nil {
		return 0, nil
	}
	return max(s.Probe.ReceiveLSN, s.Probe.ReplayLSN), nil
}

// failsafeTimeout bounds each of the two questions to a member (Patroni: 2 s, one retry).
const failsafeTimeout = 2 * time.Second

// provingTime bounds a proof by the store, where there is another that needs its own time before the deadline.
func (a *Agent) provingTime(ctx context.Context, ttl time.Duration) (context.Context, context.CancelFunc) {
	if !a.Status().Dynamic.FailsafeMode {
		return ctx, func() {}
	}
	left := a.Status().Deadline.Sub(bootclock.Now())
	return context.WithTimeout(ctx, max(min(ttl/8, left/3), 100*time.Millisecond))
}

// failsafe asks all members that /failsafe names for their word, when leadership cannot be proven by the store. If all
// give it, leadership is proven until the returned deadline, and the guard knows of that.
func (a *Agent) failsafe(ctx context.Context, h dcs.Holder, ttl time.Duration) (cluster.Instant, bool) {
	s := a.Status()
	if !s.Dynamic.FailsafeMode || a.paused.Load() || s.Snapshot.Failsafe[s.Member.Name] == "" || s.Probe == nil || s.Probe.InRecovery {
		return 0, false
	}
	began := bootclock.Now()
	if err := a.askForWords(ctx, s, ttl); err != nil {
		a.log.Warn("not all members accept a leader without the store", "error", err)
		return 0, false
	}
	deadline := began.Add(ttl - a.margin(ttl))
	if a.warden.link != nil {
		a.warden.release.Store(false)
		if err := a.arm(h, deadline, ttl); err != nil {
			a.noticeTakeover(err)
			a.log.Error("all members accept this leader, but the guard does not", "error", err)
			return 0, false
		}
	}
	return deadline, true
}

// failsafeQuestion is the body of POST /failsafe; scope, member (who is asked) and ttl, in seconds, are Haven's own.
type failsafeQuestion struct {
	Scope   string                 `json:"scope"`
	Member  string                 `json:"member"`
	Name    string                 `json:"name"`
	ConnURL string                 `json:"conn_url"`
	APIURL  string                 `json:"api_url"`
	Slots   map[string]cluster.LSN `json:"slots,omitempty"`
	TTL     float64                `json:"ttl"`
}

func (a *Agent) askForWords(ctx context.Context, s Status, ttl time.Duration) error {
	m := s.Member
	q := failsafeQuestion{Scope: s.Node.Scope, Name: m.Name, ConnURL: m.ConnURL, APIURL: m.APIURL, Slots: slotPositions(s.Probe, m.Name), TTL: ttl.Seconds()}
	errs := make(chan error)
	asked := 0
	for name, url := range a.lists.toAsk(s.Snapshot.Failsafe) {
		if name == m.Name {
			continue
		}
		asked++
		q.Member = name
		body, err := json.Marshal(q)
		go func() {
			if err == nil {
				err = a.askForWord(ctx, url, body)
			}
			if err != nil {
				err = a.askForWord(ctx, url, body)
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			errs <- err
		}()
	}
	var all []error
	for range asked {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// accepted is the body of an answer that gives the word. Any other, whoever it came from, does not.
const accepted = "Accepted"

func (a *Agent) askForWord(ctx context.Context, api string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, failsafeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cluster.Member{APIURL: api}.APIBase()+"/failsafe", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if n := a.node.Load().RESTAPI; n.Username != "" {
		req.SetBasicAuth(n.Username, n.Password)
	}
	resp, err := a.opt.Peers.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err == nil && (resp.StatusCode != http.StatusOK || strings.TrimSpace(string(text)) != accepted) {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

// lists are what /failsafe names, and may name.
type lists struct {
	seen map[string]time.Time // when a member's key was last there; owned by the loop

	mu    sync.Mutex
	tried map[string]string // named by writes of which it is not known that they were done, or that they never will be
}

// wanted is what /failsafe should name: all members with a REST API, the leader also while its member key is missing, and
// for a ttl those whose key has just gone: a member that is not named must not lead. nil: it is right as it is.
func (l *lists) wanted(s cluster.Snapshot, me cluster.Member, on bool, ttl time.Duration) map[string]string {
	out := map[string]string{}
	if l.seen == nil {
		l.seen = map[string]time.Time{}
	}
	for _, m := range s.Members {
		if l.seen[m.Name] = time.Now(); m.APIURL != "" {
			out[m.Name] = m.APIURL
		}
	}
	for name, url := range s.Failsafe {
		if last, known := l.seen[name]; !known {
			l.seen[name] = time.Now()
		} else if time.Since(last) > ttl {
			continue
		}
		if out[name] == "" {
			out[name] = url
		}
	}
	if me.APIURL != "" {
		out[me.Name] = me.APIURL
	}
	if !on {
		out = map[string]string{}
	}
	l.settle(s.Failsafe, out)
	if maps.Equal(out, s.Failsafe) {
		return nil
	}
	return out
}

// settle forgets what was tried once the store shows what is wanted.
func (l *lists) settle(stored, wanted map[string]string) {
	if maps.Equal(stored, wanted) {
		l.mu.Lock()
		l.tried = nil
		l.mu.Unlock()
	}
}

// trying notes what is about to be written: the store may hold it though no answer comes.
func (l *lists) trying(list map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried == nil {
		l.tried = map[string]string{}
	}
	maps.Copy(l.tried, list)
}

// toAsk are all whom the store may name.
func (l *lists) toAsk(stored map[string]string) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(stored)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, l.tried)
	return out
}
