package cli

import (
	"bufio"
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// checkFacts asks for what the checks need; only: for that check.
func (c *console) checkFacts(ctx context.Context, only string) (checkFacts, error) {
	quiet := *c
	quiet.quiet = true // a plugin says one line
	r, err := quiet.reader("")
	if err != nil {
		return checkFacts{}, err
	}
	defer r.close()
	p, err := r.read(ctx)
	if err != nil {
		return checkFacts{}, err
	}
	f := checkFacts{scope: p.scope}
	need := func(name string) bool { return only == "" || only == name }
	var asked sync.WaitGroup
	asked.Go(func() { f.status = r.assess(ctx, p) })
	if need("sync") || need("replication") {
		asked.Go(func() {
			h, err := r.health(ctx, p)
			f.health, f.known = h, err == nil
		})
	}
	if need("etcd") && r.store != nil {
		asked.Go(func() { f.etcd = r.store.Health(ctx) })
	}
	if need("disk") {
		asked.Go(func() { f.disks, f.unmeasured = r.disks(ctx, p) })
	}
	asked.Wait()
	return f, nil
}

// disks are the file systems of all members, by their metrics; silent are the members that tell of none.
func (r *reader) disks(ctx context.Context, p picture) (out []diskMetric, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	found := make([][]diskMetric, len(p.snap.Members))
	var asked sync.WaitGroup
	for i, m := range p.snap.Members {
		asked.Go(func() {
			if a, err := r.client.Do(ctx, "GET", m.APIBase(), "/metrics", nil); err == nil && a.Code == http.StatusOK {
				found[i] = readDisks(m.Name, string(a.Body))
			}
		})
	}
	asked.Wait()
	for i, list := range found {
		out = append(out, list...)
		if len(list) == 0 {
			silent = append(silent, p.snap.Members[i].Name)
		}
	}
	return out, silent
}

// readDisks reads the samples haven_disk_… of GET /metrics.
func readDisks(member, text string) []diskMetric {
	sample := regexp.MustCompile(`^haven_disk_(\w+)\{.*path="((?:[^"\\]|\\.)*)".*\} (\S+)$`)
	type figures struct{ free, size, fullIn, problem float64 }
	byPath := map[string]*figures{}
	var order []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		m := sample.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		f := byPath[m[2]]
		if f == nil {
			f = &figures{fullIn: -1}
			byPath[m[2]], order = f, append(order, m[2])
		}
		switch m[1] {
		case "free_bytes":
			f.free = value
		case "size_bytes":
			f.size = value
		case "full_in_seconds":
			f.fullIn = value
		case "problem":
			f.problem = value
		}
	}
	var out []diskMetric
	for _, path := range order {
		f := byPath[path]
		d := diskMetric{member: member, path: path, ratio: 1, bad: f.problem != 0}
		if f.size > 0 {
			d.ratio = f.free / f.size
		}
		if f.fullIn >= 0 {
			left := time.Duration(f.fullIn * float64(time.Second))
			d.fullIn = &left
		}
		out = append(out, d)
	}
	return out
}
