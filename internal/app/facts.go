package app

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/doctor"
)

// factsTimeout bounds what a node examines of itself.
const factsTimeout = 4 * time.Second

// facts is what this node tells haven doctor of itself.
func (n *Node) facts(ctx context.Context, body []byte, authenticated bool) (any, error) {
	var q doctor.Question
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("the body is not a question: send {\"salt\": \"…\"}")
	}
	ctx, cancel := context.WithTimeout(ctx, factsTimeout)
	defer cancel()
	c := n.node.Load()
	f := doctor.Facts{Name: c.Name, Scope: c.Scope, Haven: n.opt.Version, Findings: []doctor.Finding{}}
	if authenticated {
		var err error
		if f.Secrets, err = doctor.Hashes(c, q.Salt); err != nil {
			return nil, err
		}
	}
	host := doctor.RealHost()
	host.Owner = n.serverUser(c)
	f.Findings = append(f.Findings, doctor.Local(ctx, host, c)...)
	if n.agent != nil {
		n.examineServer(ctx, c, &f)
	} else {
		for _, p := range n.disk.Problems() {
			f.Findings = append(f.Findings, problem(c.Name, p))
		}
	}
	f.At = time.Now() // at the end: the asker takes the middle of what the answer took
	return f, nil
}

func (n *Node) serverUser(c *config.Node) int {
	if c.Postgres == nil {
		return -1
	}
	account, err := accountOf(c.Postgres.RunAs)
	switch {
	case err != nil:
		return -1
	case account != nil:
		return account.UID
	}
	return os.Geteuid()
}

func problem(name, text string) doctor.Finding {
	return doctor.Finding{Code: "problem", Severity: doctor.Warning, Member: name, Text: text, Mend: "haven status"}
}

// examineServer adds what the server itself tells. Where it does not answer, the status of the cluster says so.
func (n *Node) examineServer(ctx context.Context, c *config.Node, f *doctor.Facts) {
	st := n.agent.Fresh(ctx)
	for _, p := range st.Problems {
		f.Findings = append(f.Findings, problem(c.Name, p))
	}
	v := n.server.Version()
	f.Postgres, f.SystemID = fmt.Sprintf("%d.%d", v/10000, v%10000), st.SystemID
	p := st.Probe
	if p == nil {
		return
	}
	f.Writable, f.Timeline, f.ReplayPaused = !p.InRecovery, p.Timeline, p.ReplayPaused
	f.Position = max(p.WalLSN, p.ReceiveLSN, p.ReplayLSN)
	var idle []string
	for _, s := range p.Slots {
		if !s.Active && !s.Temporary && s.RestartLSN != 0 && s.Name != cluster.SlotName(c.Name) && !slices.Contains(st.Copies, s.Name) {
			idle = append(idle, s.Name)
		}
	}
	settings, err := n.server.ShowSettings(ctx, doctor.Settings())
	if err != nil {
		return
	}
	f.Settings = settings
	if p.InRecovery {
		f.Conflicts, _ = n.server.Conflicts(ctx) // zero where it is not known: it only adds to a text
	}
	f.Findings = append(f.Findings, doctor.JudgeServer(*f, c.PostgresWith(st.Dynamic).UsePgRewind, idle)...)
}
