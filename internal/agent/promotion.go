package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/durable"
)

// promotionMark stands in the data directory and holds ha.Promotions.
const promotionMark = "haven.promotion"

func (a *Agent) markPath() string { return filepath.Join(a.server.DataDir(), promotionMark) }

// readMark reads what this member has written; another's mark came with a copy of its data, and is none.
func (a *Agent) readMark() (ha.Promotions, error) {
	p := ha.Promotions{Member: a.opt.Node.Name}
	b, err := os.ReadFile(a.markPath())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	var found ha.Promotions
	if err == nil {
		err = json.Unmarshal(b, &found)
	}
	if err != nil {
		return p, fmt.Errorf("mark of the promotions: %w", err)
	}
	if found.Member == p.Member {
		return found, nil
	}
	return p, nil
}

func (a *Agent) writeMark(p ha.Promotions) error {
	if !p.Any() {
		return a.removeMark()
	}
	b, err := json.Marshal(p)
	if err == nil {
		_, err = durable.Replace(a.markPath(), b, 0o600, a.ownLikeData)
	}
	if err != nil {
		return fmt.Errorf("mark the promotion: %w", err)
	}
	return nil
}

// removeMark removes the mark, this member's or a copied one: the data has become another's.
func (a *Agent) removeMark() error {
	_, err := durable.Remove(a.markPath())
	return err
}

// ownLikeData gives a file to the owner of the data directory, who must be able to copy it.
func (a *Agent) ownLikeData(path string) error {
	info, err := os.Stat(a.server.DataDir())
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}

// markPromotion notes that this member is about to be promoted.
func (a *Agent) markPromotion(probe *postgres.Probe) error {
	if probe == nil {
		return errors.New("the server does not answer")
	}
	p, err := a.readMark()
	if err != nil {
		return err
	}
	p.Pending = probe.Timeline
	return a.writeMark(p)
}

// begunHere notes that this member began that timeline.
func (a *Agent) begunHere(tl cluster.Timeline) {
	p, err := a.readMark()
	if err == nil {
		p.Begin(tl)
		err = a.writeMark(p)
	}
	if err != nil { // it stays pending, and is settled before the next start
		a.log.Warn("the promotion could not be marked", "error", err)
	}
}

// settleMark finds out, before the server is started as a standby, what became of the last promotion. Afterwards that
// could not be told any more, since a standby takes over the timelines of whom it follows.
func (a *Agent) settleMark() {
	p, err := a.readMark()
	if err == nil && p.Pending == 0 {
		return
	}
	var tl cluster.Timeline
	if err == nil {
		tl, _, err = a.server.LocalEnd()
	}
	if err == nil {
		p.Settle(tl)
		err = a.writeMark(p)
	}
	if err != nil {
		a.log.Warn("it is not known what became of the last promotion", "error", err)
	}
}

// dropPending notes that the last promotion did not happen: the server still is a standby.
func (a *Agent) dropPending() {
	p, err := a.readMark()
	if err == nil && p.Pending != 0 {
		p.Pending = 0
		err = a.writeMark(p)
	}
	if err != nil {
		a.log.Warn("the mark of a promotion that did not happen could not be removed", "error", err)
	}
}
