package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// With discover: rest the members are asked pollPause after the last round, and get pollTimeout for each of the two
// questions of a round: a second passes at most from one round to the next.
const (
	pollPause   = 200 * time.Millisecond
	pollTimeout = 400 * time.Millisecond
)

// poller draws pictures from REST APIs (Patroni, GET /cluster, /primary, /replica), for clusters whose etcd is out of
// reach.
type poller struct {
	checker *checker
	bases   []string
}

// run sends a picture, or the error that leaves the state unknown, after each round until ctx ends.
func (p *poller) run(ctx context.Context, out chan<- sighting) {
	defer close(out)
	for ctx.Err() == nil {
		var s sighting
		s.picture, s.err = p.round(ctx)
		select {
		case out <- s:
		case <-ctx.Done():
			return
		}
		sleep(ctx, pollPause)
	}
}

// listing is the answer to GET /cluster.
type listing struct {
	Scope   string   `json:"scope"`
	Members []listed `json:"members"`
}

type listed struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`
	State    string          `json:"state"`
	APIURL   string          `json:"api_url"`
	Host     string          `json:"host"`
	Port     json.RawMessage `json:"port"`
	Timeline int             `json:"timeline"`
	Lag      json.RawMessage `json:"lag"`
	Tags     map[string]any  `json:"tags"`
}

func (l listed) leads() bool { return l.Role == "leader" || l.Role == "standby_leader" }

// round asks everybody and draws the picture.
func (p *poller) round(ctx context.Context) (picture, error) {
	answers, errs := make([]*listing, len(p.bases)), make([]error, len(p.bases))
	var asked sync.WaitGroup
	for i, base := range p.bases {
		asked.Go(func() { answers[i], errs[i] = p.list(ctx, base) })
	}
	asked.Wait()
	best := believed(answers)
	if best == nil {
		return picture{}, fmt.Errorf("no member's REST API answers /cluster: %w", errors.Join(errs...))
	}
	pic := sketch(*best)
	p.roles(ctx, &pic)
	return pic, nil
}

func (p *poller) list(ctx context.Context, base string) (*listing, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/cluster", nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.checker.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/cluster: %s", base, resp.Status)
	}
	var l listing
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&l); err != nil {
		return nil, fmt.Errorf("%s/cluster: %w", base, err)
	}
	if p.checker.scope != "" && l.Scope != "" && l.Scope != p.checker.scope {
		return nil, fmt.Errorf("%s/cluster: belongs to another cluster, %q", base, l.Scope)
	}
	return &l, nil
}

// believed is the answer that names the leader whom most name; among equals, the one with the highest timeline, then
// one that names a leader at all. nil: nobody answered.
func believed(answers []*listing) *listing {
	votes := map[string]int{}
	for _, a := range answers {
		if a != nil {
			votes[a.leader().Name]++
		}
	}
	var best *listing
	for _, a := range answers {
		if a == nil {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(votes[a.leader().Name], votes[best.leader().Name]),
			cmp.Compare(a.leader().Timeline, best.leader().Timeline),
			cmp.Compare(a.leader().Name, best.leader().Name)) > 0 {
			best = a
		}
	}
	return best
}

func (l *listing) leader() listed {
	if i := slices.IndexFunc(l.Members, listed.leads); i >= 0 {
		return l.Members[i]
	}
	return listed{}
}

// sketch is the picture as one member's answer draws it.
func sketch(l listing) picture {
	var p picture
	if leader := l.leader(); leader.Name != "" {
		p.leader, p.ready = &leadership{holder: leader.Name}, true
	}
	for _, m := range l.Members {
		s := server{name: m.Name, state: cluster.State(m.State), leads: m.leads(), lag: -1, excluded: cluster.Member{Tags: m.Tags}.Tag("noloadbalance")}
		if port := strings.Trim(string(m.Port), `"`); m.Host != "" && port != "" && port != "null" {
			s.address = net.JoinHostPort(m.Host, port)
		}
		if u, err := url.Parse(m.APIURL); err == nil && u.Host != "" {
			s.api = u.Scheme + "://" + u.Host
		}
		// The state of a standby is that of its replication, where that is known (Patroni 3.0 and later).
		if m.State == "streaming" || m.State == "in archive recovery" {
			s.state, s.streaming = cluster.StateRunning, m.State == "streaming"
		}
		if lag, err := strconv.ParseInt(string(m.Lag), 10, 64); err == nil {
			s.lag = lag
		}
		p.servers = append(p.servers, s)
	}
	slices.SortFunc(p.servers, func(a, b server) int { return cmp.Compare(a.name, b.name) })
	return p
}

// roles asks each member what it is itself. A leader that does not say so leads no more; a member that does not answer
// is taken for what the others say.
func (p *poller) roles(ctx context.Context, pic *picture) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	denied := make([]string, len(pic.servers))
	var asked sync.WaitGroup
	for i, s := range pic.servers {
		if s.api == "" {
			continue
		}
		path := "/replica"
		if s.leads {
			path = "/primary"
		}
		asked.Go(func() {
			if code, _, err := p.checker.get(ctx, s.api+path); err == nil && code != http.StatusOK {
				denied[i] = fmt.Sprintf("its REST API answers %d to %s", code, path)
			}
		})
	}
	asked.Wait()
	for i := range pic.servers {
		if s := &pic.servers[i]; s.leads && denied[i] != "" {
			pic.ready, pic.unready = false, denied[i]
		} else {
			s.refused = denied[i]
		}
	}
}
