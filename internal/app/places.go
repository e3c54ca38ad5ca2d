package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/disk"
)

// places are the directories that a node writes to. It reads directories, and may hang where they do.
func places(c *config.Node) []disk.Place {
	out := []disk.Place{}
	if p := c.Postgres; p != nil {
		out = append(out, disk.Place{Use: "data", Path: p.DataDir}, disk.Place{Use: "wal", Path: filepath.Join(p.DataDir, "pg_wal")})
		links, _ := os.ReadDir(filepath.Join(p.DataDir, "pg_tblspc")) // there may be no database yet
		for _, l := range links {
			out = append(out, disk.Place{Use: "tablespace " + l.Name(), Path: filepath.Join(p.DataDir, "pg_tblspc", l.Name())})
		}
	}
	return append(out, disk.Place{Use: "state", Path: c.Dir()})
}

// leftovers looks again and again for data that was moved aside and still lies around.
type leftovers struct {
	node  *config.Node
	found atomic.Pointer[[]string]
}

// Problems are the sentences on what was found. It never blocks.
func (l *leftovers) Problems() []string {
	if p := l.found.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *leftovers) run(ctx context.Context) error {
	for {
		looked := make(chan []string, 1)
		go func() { looked <- l.look() }() // a hung file system keeps it, and nobody waits for it then
		select {
		case <-ctx.Done():
			return nil
		case found := <-looked:
			l.found.Store(&found)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(disk.Every):
		}
	}
}

func (l *leftovers) look() []string {
	dir := l.node.Postgres.DataDir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	bases := []string{dir}
	links, _ := os.ReadDir(filepath.Join(dir, "pg_tblspc"))
	for _, link := range links {
		if target, err := os.Readlink(filepath.Join(dir, "pg_tblspc", link.Name())); err == nil && filepath.IsAbs(target) {
			bases = append(bases, target)
		}
	}
	var aside []string
	for _, base := range bases {
		entries, _ := os.ReadDir(filepath.Dir(base))
		for _, e := range entries {
			if name := e.Name(); strings.HasPrefix(name, filepath.Base(base)+".") && strings.HasSuffix(name, ".aside") {
				aside = append(aside, filepath.Join(filepath.Dir(base), name))
			}
		}
	}
	if len(aside) == 0 {
		return []string{}
	}
	return []string{"data that was moved aside takes room: " + strings.Join(aside, ", ") + "; remove it when nobody misses what it holds"}
}
