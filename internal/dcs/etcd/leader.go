package etcd

import (
	"context"
	"errors"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Acquire takes the leader key where it is absent, with the next term.
func (c *Client) Acquire(ctx context.Context, claim dcs.Claim) (dcs.Holder, error) {
	t, err := c.claim(claim)
	if err != nil {
		return dcs.Holder{}, wrap("acquire leadership", err)
	}
	t.what = "acquire leadership"
	return c.take(ctx, claim, t)
}

// Found ends a bootstrap: system identifier, configuration, synchronous state, leader and first term at once.
func (c *Client) Found(ctx context.Context, f dcs.Founding) (dcs.Holder, error) {
	t, err := c.claim(f.Claim)
	if err == nil {
		err = c.founding(&t, f)
	}
	if err != nil {
		return dcs.Holder{}, wrap("found the cluster", err)
	}
	t.what = "found the cluster"
	return c.take(ctx, f.Claim, t)
}

func (c *Client) founding(t *transaction, f dcs.Founding) error {
	t.compares = append(t.compares, clientv3.Compare(clientv3.Value(c.key(keyInitialize)), "=", ""))
	t.writes = append(t.writes, c.put(keyInitialize, f.SystemID))
	if f.Config != nil {
		v, err := encodeConfig(f.Config)
		if err != nil {
			return err
		}
		t.writes = append(t.writes, c.put(keyConfig, v))
	}
	if f.Sync != nil {
		v, err := encodeSync(*f.Sync)
		if err != nil {
			return err
		}
		t.compares = append(t.compares, c.absent(keySync))
		t.writes = append(t.writes, c.put(keySync, v))
	}
	return nil
}

// claim is what every new leadership has in common. The term's nonce tells our own claim from another's.
func (c *Client) claim(claim dcs.Claim) (transaction, error) {
	if claim.Name == "" || claim.Lease == 0 || claim.Term.Nonce == "" || claim.Term.Number == 0 {
		return transaction{}, errors.New("a claim needs a name, a lease, and a term with number and nonce")
	}
	term, err := encode(claim.Term)
	if err != nil {
		return transaction{}, err
	}
	return transaction{
		compares: []clientv3.Cmp{c.absent(keyLeader), c.modified(keyTerm, claim.TermRev)},
		writes:   []clientv3.Op{c.putLeased(keyLeader, claim.Name, claim.Lease), c.put(keyTerm, term)},
		reads:    []string{keyLeader, keyTerm},
		ours: func(k keys) bool {
			return k.is(keyLeader, claim.Name) && k[keyLeader].Lease == claim.Lease && k.is(keyTerm, term) &&
				k.rev(keyLeader) == k.rev(keyTerm)
		},
	}, nil
}

func (c *Client) take(ctx context.Context, claim dcs.Claim, t transaction) (dcs.Holder, error) {
	out, err := c.commit(ctx, t)
	if err != nil {
		return dcs.Holder{}, err
	}
	return dcs.Holder{
		Name: claim.Name, Lease: claim.Lease,
		LeaderRev: out.revOf(keyLeader), TermRev: out.revOf(keyTerm),
	}, nil
}

// Release deletes the leader key, after writing status if given. The lease goes on, since the member key hangs on it.
func (c *Client) Release(ctx context.Context, h dcs.Holder, s *cluster.Status) error {
	t := transaction{what: "release leadership", compares: []clientv3.Cmp{c.leaderIs(h)}, reads: []string{keyLeader, keyStatus}}
	status, err := c.putStatus(&t, s)
	if err != nil {
		return wrap(t.what, err)
	}
	t.writes = append(t.writes, c.remove(keyLeader), c.remove(keyHold))
	t.ours = func(k keys) bool { return k[keyLeader] == nil && (s == nil || k.is(keyStatus, status)) }
	_, err = c.commit(ctx, t)
	return err
}

// putStatus adds a write of status, if there is one; it returns the value.
func (c *Client) putStatus(t *transaction, s *cluster.Status) (string, error) {
	if s == nil {
		return "", nil
	}
	v, err := encode(s)
	if err == nil {
		t.writes = append(t.writes, c.put(keyStatus, v))
	}
	return v, err
}

// HandOver gives the leader key to another member, whose member key must still hang on the lease that is given.
func (c *Client) HandOver(ctx context.Context, h dcs.Holder, o dcs.Handover) error {
	t := transaction{what: "hand over leadership"}
	term, err := encode(o.Term)
	if err == nil {
		_, err = c.putStatus(&t, o.Status)
	}
	if err == nil && (o.Candidate == "" || o.Lease == 0 || o.Term.Nonce == "") {
		err = errors.New("a handover needs a candidate, its lease, and a term with a nonce")
	}
	if err != nil {
		return wrap(t.what, err)
	}
	member := keyMembers + o.Candidate
	t.compares = []clientv3.Cmp{
		c.leaderIs(h), c.modified(keyTerm, h.TermRev),
		clientv3.Compare(clientv3.CreateRevision(c.key(member)), "!=", 0),
		clientv3.Compare(clientv3.LeaseValue(c.key(member)), "=", o.Lease),
	}
	t.writes = append(t.writes, c.putLeased(keyLeader, o.Candidate, o.Lease), c.put(keyTerm, term), c.remove(keyHold))
	if o.FailoverRev != 0 {
		t.compares = append(t.compares, c.modified(keyFailover, o.FailoverRev))
		t.writes = append(t.writes, c.put(keyFailover, "{}"))
	}
	t.reads = []string{keyTerm}
	// The candidate keeps the nonce of a term that it was given, whatever becomes of the term's state.
	t.ours = func(k keys) bool { return k[keyTerm] != nil && decodeTerm(k[keyTerm].Value, 0).Nonce == o.Term.Nonce }
	_, err = c.commit(ctx, t)
	return err
}
