package doctor

import (
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/dcs/etcd"
)

// defaultQuota is etcd's, where it does not tell its own (etcd manual, --quota-backend-bytes).
const defaultQuota = 2 << 30

// minSyncs is how many syncs etcd must have made before their speed is judged.
const minSyncs = 100

// stores judges etcd.
func stores(e Evidence) []Finding {
	var out []Finding
	up, leaderless := 0, 0
	for _, h := range e.Etcd {
		if h.Endpoint == "" {
			return []Finding{{"etcd_unreachable", Critical, "", "it is not known where etcd is: " + h.Error, "check etcd.srv, and the DNS of this host: dig SRV _etcd-client._tcp.DOMAIN"}}
		}
		if h.Error != "" {
			out = append(out, Finding{"etcd_unreachable", Warning, "", fmt.Sprintf("etcd at %s does not answer: %s", h.Endpoint, h.Error), "is it running? etcdctl --endpoints " + h.Endpoint + " endpoint health"})
			continue
		}
		up++
		if h.Leader == 0 {
			leaderless++
		}
		out = append(out, member(h)...)
	}
	n := len(e.Etcd)
	quorum := n/2 + 1
	switch {
	case n == 0:
	case up < quorum || up == leaderless:
		out = append(out, Finding{"etcd_quorum", Critical, "", fmt.Sprintf("etcd has no quorum: %d of %d members answer, %d of them know a leader", up, n, up-leaderless), "bring back those that do not answer; without a quorum nobody can lead for longer than the ttl"})
	case up == quorum:
		out = append(out, Finding{"etcd_quorum", Warning, "", fmt.Sprintf("%d of %d members of etcd answer: the loss of one more ends the quorum, and with it writes", up, n), "bring back those that do not answer, or run three members: etcd.members"})
	}
	if n > 0 && n%2 == 0 {
		out = append(out, Finding{"etcd_even", Warning, "", fmt.Sprintf("etcd has %d members, and survives no more failures than with %d", n, n-1), "add a member on a third host (etcd.members; it needs no database there)"})
	}
	return out
}

func member(h etcd.EndpointHealth) []Finding {
	var out []Finding
	quota := h.DBQuota
	if quota <= 0 {
		quota = defaultQuota
	}
	if h.DBSize > quota*8/10 {
		out = append(out, Finding{"etcd_room", Warning, "", fmt.Sprintf("the database of etcd at %s has %s of its quota of %s", h.Endpoint, size(uint64(h.DBSize)), size(uint64(quota))),
			"etcdctl --endpoints " + h.Endpoint + " compact REVISION, then defrag; or raise quota-backend-bytes"})
	}
	if len(h.Alarms) > 0 {
		out = append(out, Finding{"etcd_alarm", Critical, "", fmt.Sprintf("etcd at %s has raised %s", h.Endpoint, strings.Join(h.Alarms, ", ")),
			"make room, then: etcdctl --endpoints " + h.Endpoint + " alarm disarm; after CORRUPT, replace the member"})
	}
	if h.Took > slowAnswer {
		out = append(out, Finding{"etcd_slow", Warning, "", fmt.Sprintf("etcd at %s took %d ms to answer", h.Endpoint, h.Took.Milliseconds()), "look at the load and the network of its host"})
	}
	if h.Syncs >= minSyncs && h.SlowSync > 0.01 {
		out = append(out, Finding{"etcd_slow", Warning, "", fmt.Sprintf("%.1f %% of the syncs of etcd's WAL at %s took longer than %d ms", h.SlowSync*100, h.Endpoint, etcd.SlowSyncLimit.Milliseconds()),
			"give etcd a disk of its own (haven.state_dir), away from the database's WAL: iostat -x 1 5"})
	}
	return out
}

// timing: a lost leader of etcd is replaced after one to two election timeouts (etcd manual, tuning); meanwhile no lease
// is renewed.
func timing(e Evidence) []Finding {
	if e.ElectionTimeout == 0 || e.TTL == 0 || 2*e.ElectionTimeout <= e.TTL/2 {
		return nil
	}
	return []Finding{{"etcd_timing", Warning, "", fmt.Sprintf("an election in etcd may take %s, and the leader's lease lasts %s: the loss of one member of etcd may cost the leadership", 2*e.ElectionTimeout, e.TTL),
		"raise ttl to at least " + (4 * e.ElectionTimeout).String() + ", or lower etcd.election_timeout"}}
}
