package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// memberCall bounds one question about, or change of, the membership.
	memberCall = 3 * time.Second
	// promotePause is waited between tries to make a learner a voter: it has to catch up first.
	promotePause = 250 * time.Millisecond
	// checkEvery is how often a member that is not ready looks whether the others are of its cluster at all.
	checkEvery = 2 * time.Second
)

// members runs fn on the serving members in turn until one succeeds.
func (s *Server) members(ctx context.Context, serving []ServerMember, fn func(context.Context, pb.ClusterClient) error) error {
	err := errors.New("no other member serves")
	for _, m := range serving {
		n := &node{endpoint: s.opt.scheme() + "://" + m.Client, opt: &Options{TLS: s.secure, Log: s.opt.Log}}
		l, openErr := n.open()
		if openErr != nil {
			err = openErr
			continue
		}
		try, cancel := context.WithTimeout(ctx, memberCall)
		err = fn(try, l.cluster)
		cancel()
		n.close()
		if err == nil {
			return nil
		}
	}
	return err
}

// join makes the living cluster expect this member, and tells how to start. It is not certain while the cluster has no
// quorum: a member list is read linearizably, and changes are refused by etcd unless a majority is healthy.
func (s *Server) join(ctx context.Context, serving []ServerMember) (plan, bool) {
	var list []*pb.Member
	err := s.members(ctx, serving, func(ctx context.Context, c pb.ClusterClient) (err error) {
		list, err = s.takeIn(ctx, c)
		return err
	})
	if err != nil {
		s.opt.Log.Debug("etcd cluster not joined", "member", s.opt.Name, "error", err)
		return plan{}, false
	}
	return plan{state: embed.ClusterStateFlagExisting, initial: s.initialExisting(list)}, true
}

// takeIn removes the predecessor of this member, whose data are lost, and adds it as a learner. It returns the members
// afterwards.
func (s *Server) takeIn(ctx context.Context, c pb.ClusterClient) ([]*pb.Member, error) {
	resp, err := c.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return nil, err
	}
	url := s.opt.scheme() + "://" + s.opt.self().Peer
	for _, m := range resp.Members {
		here := slices.Contains(m.PeerURLs, url)
		if here && m.Name == "" {
			// Added by an earlier try of ours, and never started.
			return resp.Members, nil
		}
		if !here && m.Name != s.opt.Name {
			continue
		}
		if !here && s.answers(ctx, m.ClientURLs) {
			return nil, fmt.Errorf("a member named %s already runs at %v: give this one another name", m.Name, m.ClientURLs)
		}
		s.opt.Log.Warn("replacing an etcd member without data", "member", m.Name, "id", fmt.Sprintf("%x", m.ID))
		if _, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID}); err != nil &&
			!errors.Is(rpctypes.Error(err), rpctypes.ErrMemberNotFound) {
			return nil, err
		}
	}
	added, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: true})
	if err != nil {
		return nil, err
	}
	return added.Members, nil
}

// answers tells whether a member with data runs at one of the addresses.
func (s *Server) answers(ctx context.Context, urls []string) bool {
	return slices.ContainsFunc(urls, func(u string) bool {
		g, err := greet(ctx, s.web, u)
		return err == nil && g.Data
	})
}

// initialExisting lists the members as etcd knows them; one that has never started has no name yet, except to us.
func (s *Server) initialExisting(list []*pb.Member) string {
	var parts []string
	for _, m := range list {
		name := m.Name
		if name == "" {
			name = s.nameOf(m)
		}
		for _, u := range m.PeerURLs {
			parts = append(parts, name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

func (s *Server) nameOf(m *pb.Member) string {
	for _, o := range s.opt.Members {
		if slices.Contains(m.PeerURLs, s.opt.scheme()+"://"+o.Peer) {
			return o.Name
		}
	}
	return fmt.Sprintf("unnamed-%x", m.ID)
}

// becomeReady waits until etcd has made itself known through its cluster, and has it made a voter.
func (s *Server) becomeReady(ctx context.Context, e *embed.Etcd) error {
	for {
		turn, cancel := context.WithTimeout(ctx, checkEvery)
		err := s.wait(turn, e, e.Server.ReadyNotify())
		cancel()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-e.Server.ReadyNotify():
			return s.becomeVoter(ctx, e)
		default:
		}
		others := s.opt.others()
		found, err := greetAll(ctx, s.web, s.opt.scheme(), others)
		if err == nil {
			err = s.sameCluster(others, found)
		}
		if err != nil {
			return err
		}
	}
}

// becomeVoter has a learner promoted as soon as it has caught up; etcd refuses before.
func (s *Server) becomeVoter(ctx context.Context, e *embed.Etcd) error {
	for e.Server.IsLearner() {
		err := s.members(ctx, s.opt.others(), func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: uint64(e.Server.MemberID())})
			return err
		})
		if err != nil {
			s.opt.Log.Debug("etcd learner not promoted yet", "member", s.opt.Name, "error", err)
		}
		turn, cancel := context.WithTimeout(ctx, promotePause)
		err = s.wait(turn, e, nil)
		cancel()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
