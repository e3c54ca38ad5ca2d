package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/havenha/haven/internal/drill/stack"
)

// idleResult is what a cluster without clients used.
type idleResult struct {
	Begun   time.Time    `json:"begun"`
	Samples []idleSample `json:"samples"`
}

// idleSample is the state of things after so many seconds.
type idleSample struct {
	After    float64          `json:"after"`
	Index    int64            `json:"index"`    // of etcd's raft log
	Resident map[string]int64 `json:"resident"` // bytes, of the agent with its etcd member, by host
}

// idleEvery is the time between two samples.
const idleEvery = time.Minute

// rest watches a cluster with the guides' settings, which nobody uses, for as long as asked.
func (b *bench) rest(ctx context.Context) error {
	v := variants()[0]
	v.Name = "idle"
	var scratch variantResult
	s, err := b.boot(ctx, v, &scratch)
	if err != nil {
		return err
	}
	defer func() { end(s) }()
	r := idleResult{Begun: time.Now()}
	for {
		sample, err := restSample(ctx, s, time.Since(r.Begun))
		if err != nil {
			return err
		}
		r.Samples = append(r.Samples, sample)
		log.Printf("after %.0f s: raft index %d, resident %v", sample.After, sample.Index, sample.Resident)
		if err := errors.Join(writeJSON(filepath.Join(b.o.out, "idle.json"), r), writeIdle(b.o.out, r)); err != nil {
			return err
		}
		if time.Since(r.Begun) >= b.o.idle {
			return nil
		}
		if err := sleep(ctx, min(idleEvery, time.Until(r.Begun.Add(b.o.idle)))); err != nil {
			return err
		}
	}
}

func restSample(ctx context.Context, s *stack.Stack, after time.Duration) (idleSample, error) {
	out := idleSample{After: after.Seconds(), Resident: map[string]int64{}}
	var err error
	if out.Index, err = s.StoreIndex(ctx); err != nil {
		return out, err
	}
	for _, member := range stack.Members() {
		for _, u := range s.Net.Host(member).Memory() {
			if u.PID == s.Agent(member).PID() {
				out.Resident[member] = u.Resident
			}
		}
	}
	return out, nil
}

func writeIdle(dir string, r idleResult) error {
	return os.WriteFile(filepath.Join(dir, "idle.md"), []byte(renderRest(r)), 0o644)
}

// renderRest is the page with what the idle cluster used.
func renderRest(r idleResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# An idle cluster\n\nWhat `make idle` measured from %s on; it writes this page and `idle.json` again. Three members with the default\n", r.Begun.UTC().Format("2006-01-02 15:04 UTC"))
	b.WriteString("settings, each with a member of the embedded etcd; nobody connects. **Resident** is that of the agent's process, etcd in it, in MiB (VmRSS);\n**entries** are those of etcd's raft log, a second and member, since the sample before.\n\n")
	b.WriteString("| minutes | resident: " + strings.Join(stack.Members(), " | ") + " | entries |\n| ---: |" + strings.Repeat(" ---: |", len(stack.Members())+1) + "\n")
	for i, s := range r.Samples {
		if i%5 != 0 && i != len(r.Samples)-1 {
			continue
		}
		fmt.Fprintf(&b, "| %.0f |", s.After/60)
		for _, m := range stack.Members() {
			fmt.Fprintf(&b, " %.1f |", float64(s.Resident[m])/(1<<20))
		}
		if i == 0 {
			b.WriteString(" |\n")
			continue
		}
		before := r.Samples[max(0, i-5)]
		fmt.Fprintf(&b, " %.3f |\n", float64(s.Index-before.Index)/(s.After-before.After)/float64(len(stack.Members())))
	}
	return b.String()
}
