package proxy

import (
	"fmt"

	"github.com/havenha/haven/internal/cluster"
)

// leadership names one time of leading. Two that differ are not the same time of leading.
type leadership struct {
	holder string
	// term is the number of the term; 0 for a foreign leadership, one that writes no terms.
	term uint64
	// created is the revision at which a foreign leader key was created; 0 with a term.
	created int64
}

// continues tells whether sessions of the leadership old may live on under l. A foreign leader key that was created
// anew by the same holder (Patroni does so after its store was away for longer than the ttl) ends nothing: had another
// led in between, this holder's server would have been stopped, and its sessions with it.
func (l leadership) continues(old leadership) bool {
	return l.holder == old.holder && l.term == old.term
}

// server is what is known of one member's server.
type server struct {
	name    string
	address string // host:port; empty: unknown
	api     string // base of the REST API; empty: unknown
	state   cluster.State
	// streaming tells whether it receives WAL from another server right now.
	streaming bool
	excluded  bool // tag noloadbalance
	leads     bool
	lag       int64 // bytes behind the leader; -1: unknown
	// refused says why it is no replica by its own word (member key or REST API); empty: it is, as far as is known.
	refused string
}

// picture is the cluster as it was last seen.
type picture struct {
	leader *leadership // nil: nobody leads
	// ready tells whether the leadership has come so far that its holder may be asked; unready says why not.
	ready   bool
	unready string
	hold    *cluster.Hold // asked for by the leader; nil: none
	servers []server      // sorted by name
}

func (p picture) find(name string) (server, bool) {
	for _, s := range p.servers {
		if s.name == name {
			return s, true
		}
	}
	return server{}, false
}

// depict draws the picture from a snapshot of the store.
func depict(s cluster.Snapshot) picture {
	var p picture
	if l := s.Leader; l != nil && l.Name != "" {
		p.leader, p.ready = &leadership{holder: l.Name, created: l.CreateRev}, true
		if s.Term.Binds(l) {
			p.leader = &leadership{holder: l.Name, term: s.Term.Number}
			if s.Term.State != cluster.TermPromoted {
				p.ready, p.unready = false, fmt.Sprintf("term %d is %s, not yet promoted", s.Term.Number, s.Term.State)
			}
		}
	}
	if h := s.Hold; h != nil && p.leader != nil && h.Term == p.leader.term {
		p.hold = h
	}
	for _, m := range s.Members {
		refused := ""
		if m.Role != cluster.RoleReplica {
			refused = fmt.Sprintf("its member key says %q", m.Role)
		}
		p.servers = append(p.servers, server{
			name: m.Name, address: m.Address(), api: m.APIBase(), state: m.State,
			streaming: m.ReplicationState == "streaming", excluded: m.Tag("noloadbalance"),
			leads: p.leader != nil && p.leader.holder == m.Name, lag: lagOf(m, s.Status), refused: refused,
		})
	}
	return p
}

// lagOf is how far a member's key lies behind the leader's position in the key status, in bytes; -1 if either is unknown.
func lagOf(m cluster.Member, status *cluster.Status) int64 {
	if status == nil || status.Optime == 0 || m.XlogLocation == 0 {
		return -1
	}
	return int64(m.XlogLocation.Behind(status.Optime))
}
