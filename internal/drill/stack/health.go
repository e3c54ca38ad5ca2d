package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// MemberState is what a member's server says of itself.
type MemberState struct {
	Answers   bool
	Primary   bool
	Streaming int // standbys that stream from it
}

// askTimeout bounds one question.
const askTimeout = 700 * time.Millisecond

const stateQuery = `SELECT NOT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')`

// State asks every member, in parallel.
func (s *Stack) State(ctx context.Context) map[string]MemberState {
	var mu sync.Mutex
	var all sync.WaitGroup
	out := map[string]MemberState{}
	for _, m := range Members() {
		all.Go(func() {
			st := s.ask(ctx, m)
			mu.Lock()
			out[m] = st
			mu.Unlock()
		})
	}
	all.Wait()
	return out
}

func (s *Stack) ask(ctx context.Context, member string) MemberState {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := s.Connect(ctx, s.DSN(member))
	if err != nil {
		return MemberState{}
	}
	defer c.Close(context.WithoutCancel(ctx))
	st := MemberState{Answers: true}
	if err := c.QueryRow(ctx, stateQuery).Scan(&st.Primary, &st.Streaming); err != nil {
		return MemberState{}
	}
	return st
}

// Primaries are the members that answer as primaries.
func (s *Stack) Primaries(ctx context.Context) []string {
	var out []string
	state := s.State(ctx)
	for _, m := range Members() {
		if state[m].Primary {
			out = append(out, m)
		}
	}
	return out
}

// Healthy tells whether all is as it should be: one primary, all others streaming from it, in a synchronous mode one of
// them recorded as synchronous, and a way through the balancer to the primary. It names the primary.
func (s *Stack) Healthy(ctx context.Context) (string, bool) {
	state, primary := s.State(ctx), ""
	for _, m := range Members() {
		if !state[m].Answers || state[m].Primary && primary != "" {
			return "", false
		}
		if state[m].Primary {
			primary = m
		}
	}
	if primary == "" || state[primary].Streaming != len(Members())-1 {
		return "", false
	}
	return primary, s.writable(ctx) && (s.Settings.Synchronous == "off" || s.recorded(ctx, primary))
}

// recorded tells whether the store names a synchronous standby, as GET /cluster of the primary shows it (Patroni's API,
// which both serve). Until then a failure of the primary cannot be survived without loss, and neither product tries.
func (s *Stack) recorded(ctx context.Context, primary string) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/cluster", s.Net.Host(primary).At(RESTPort)), nil)
	if err != nil {
		return false
	}
	answer, err := s.http().Do(req)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	var is struct {
		Members []struct{ Role string } `json:"members"`
	}
	if json.NewDecoder(answer.Body).Decode(&is) != nil {
		return false
	}
	for _, m := range is.Members {
		if m.Role == "sync_standby" || m.Role == "quorum_standby" {
			return true
		}
	}
	return false
}

func (s *Stack) writable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := s.Connect(ctx, s.WriteDSN())
	if err != nil {
		return false
	}
	defer c.Close(context.WithoutCancel(ctx))
	var standby bool
	return c.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby) == nil && !standby
}

// poll is how often health is asked for.
const poll = 100 * time.Millisecond

// AwaitHealthy waits until all is as it should be, at most that long, and names the primary.
func (s *Stack) AwaitHealthy(ctx context.Context, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		if primary, ok := s.Healthy(ctx); ok {
			return primary, nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return "", fmt.Errorf("%s is not healthy within %s: %+v", s.Name, within, s.State(context.WithoutCancel(ctx)))
		}
	}
}

// AwaitTakeover waits until another member than old answers as a primary, at most that long.
func (s *Stack) AwaitTakeover(ctx context.Context, within time.Duration, old string) error {
	_, err := s.successors(ctx, within, old)
	return err
}

// successors are the members that answer as primaries beside old, as soon as there is one, at most after that long.
func (s *Stack) successors(ctx context.Context, within time.Duration, old string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		if next := slices.DeleteFunc(s.Primaries(ctx), func(m string) bool { return m == old }); len(next) > 0 {
			return next, nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: nobody has taken over from %s within %s", s.Name, old, within)
		}
	}
}

// Switchover asks the leader's REST API for one (Patroni's POST /switchover, which both serve).
func (s *Stack) Switchover(ctx context.Context, leader, candidate string) error {
	body, err := json.Marshal(map[string]string{"leader": leader, "candidate": candidate})
	if err != nil {
		return err
	}
	url := fmt.Sprintf("http://%s/switchover", s.Net.Host(leader).At(RESTPort))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(restUser, s.Password)
	answer, err := s.http().Do(req)
	if err != nil {
		return fmt.Errorf("switchover: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("switchover: %s: %s (%v)", answer.Status, text, err)
	}
	return nil
}

// switchoverSoon asks again for a while: just after a fault nobody may be fit to take over yet.
func (s *Stack) switchoverSoon(ctx context.Context, leader string) error {
	for begun := time.Now(); ; {
		err := s.Switchover(ctx, leader, "")
		if err == nil || time.Since(begun) > 20*time.Second {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

const restUser = "drill"

func (s *Stack) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: s.Dial, DisableKeepAlives: true}}
}

// StoreIndex is how many entries the raft log of the store has had (etcd's maintenance status over its HTTP gateway).
func (s *Stack) StoreIndex(ctx context.Context) (int64, error) {
	url := fmt.Sprintf("http://%s/v3/maintenance/status", s.Net.Host(Members()[0]).At(EtcdPort))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte("{}")))
	if err != nil {
		return 0, err
	}
	answer, err := s.http().Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var status struct {
		RaftIndex int64 `json:"raftIndex,string"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("etcd status: %s: %w", answer.Status, err)
	}
	return status.RaftIndex, nil
}
