package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// formingPause is waited between two rounds of questions; forming is what the start of a cluster waits for.
	formingPause = 100 * time.Millisecond
	// remindEvery is how often it is said for whom is waited.
	remindEvery = 10 * time.Second
)

// forming is what a member without data has learned of the others.
type forming struct {
	server *Server
	marker *marker
	// ready are the others that have told that they may form the cluster; they keep that on disk.
	ready    map[string]bool
	reminded time.Time
}

// decide finds out how to begin without data. It answers the others' questions meanwhile, and returns when it is
// certain.
//
// A member becomes ready when it has seen all others without data at once, and keeps that on disk; from then on it may
// begin the new cluster at any time, by itself: no history can have existed without one of the others holding it. It
// goes on answering until all others are ready too, since those need its answer to become so.
func (s *Server) decide(ctx context.Context, m *marker) (plan, error) {
	s.greeter.set(m.Phase, false)
	if len(s.opt.others()) == 0 {
		return s.newCluster(), nil
	}
	address, err := numericAddress(ctx, s.opt.self().Client)
	if err != nil {
		return plan{}, err
	}
	stop, err := s.greeter.serve(address, s.secure)
	if err != nil {
		return plan{}, fmt.Errorf("%w: another program uses that address, or it is not this host's", err)
	}
	defer stop()
	f := &forming{server: s, marker: m, ready: map[string]bool{}, reminded: time.Now()}
	for {
		p, certain, err := f.round(ctx)
		if err != nil || certain {
			return p, err
		}
		if !sleep(ctx, formingPause) {
			return plan{}, ctx.Err()
		}
	}
}

// round asks all others once.
func (f *forming) round(ctx context.Context) (p plan, certain bool, err error) {
	s := f.server
	others := s.opt.others()
	found, err := greetAll(ctx, s.web, s.opt.scheme(), others)
	if err != nil {
		return plan{}, false, err
	}
	if err := s.sameCluster(others, found); err != nil {
		return plan{}, false, err
	}
	var serving []ServerMember
	for _, m := range others {
		g, answered := found[m.Name]
		if answered && g.Data {
			serving = append(serving, m)
		}
		if answered && g.Phase == phaseReady {
			f.ready[m.Name] = true
		}
	}
	switch {
	case f.marker.Phase == phaseReady && (len(serving) > 0 || len(f.ready) == len(others) || f.begun(ctx, others, found)):
		return s.newCluster(), true, nil
	case len(serving) > 0:
		p, certain = s.join(ctx, serving)
	case len(found) == len(others) && f.marker.Phase != phaseReady:
		err = f.becomeReady()
	}
	f.remind(others, found, len(serving))
	return p, certain, err
}

// begun tells whether another member, no longer answering, runs etcd already: then it has seen all to be ready.
func (f *forming) begun(ctx context.Context, others []ServerMember, found map[string]greeting) bool {
	for _, m := range others {
		if _, answered := found[m.Name]; !answered && beginning(ctx, f.server.web, f.server.opt.scheme()+"://"+m.Peer) {
			return true
		}
	}
	return false
}

func (f *forming) becomeReady() error {
	m := marker{Token: f.server.opt.Token, Phase: phaseReady}
	if err := m.write(f.server.opt.DataDir); err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	*f.marker = m
	f.server.greeter.set(phaseReady, false)
	return nil
}

// sameCluster refuses to go on beside a member of another cluster, or at an address that is another member's.
func (s *Server) sameCluster(others []ServerMember, found map[string]greeting) error {
	for _, m := range others {
		g, answered := found[m.Name]
		switch {
		case !answered:
		case g.Token != s.opt.Token:
			return fmt.Errorf("embedded etcd: member %s at %s belongs to cluster %q, this member to %q: give both the same etcd.token, or correct etcd.members", m.Name, m.Client, g.Token, s.opt.Token)
		case g.Name != m.Name:
			return fmt.Errorf("embedded etcd: at %s answers member %s, not %s: correct etcd.members", m.Client, g.Name, m.Name)
		}
	}
	return nil
}

func (f *forming) remind(others []ServerMember, found map[string]greeting, serving int) {
	if time.Since(f.reminded) < remindEvery {
		return
	}
	f.reminded = time.Now()
	var missing []string
	for _, m := range others {
		if _, answered := found[m.Name]; !answered {
			missing = append(missing, m.Name+" ("+m.Client+")")
		}
	}
	text := "all members must be there once to form a cluster"
	if serving > 0 {
		text = "the cluster has no quorum, or has not yet taken this member in"
	}
	f.server.opt.Log.Warn("waiting for etcd members", "member", f.server.opt.Name, "missing", missing, "reason", text)
}

func (s *Server) newCluster() plan {
	return plan{state: embed.ClusterStateFlagNew, initial: s.initialNew()}
}

func (s *Server) initialNew() string {
	var parts []string
	for _, m := range s.opt.Members {
		parts = append(parts, m.Name+"="+s.opt.scheme()+"://"+m.Peer)
	}
	return strings.Join(parts, ",")
}
