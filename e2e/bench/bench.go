package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
	"github.com/havenha/haven/internal/postgres/programs"
)

// benchFaults are the rows of the table. All of them hit the primary.
func benchFaults() []string {
	return []string{"switchover", "postmaster killed", "agent killed", "host killed", "host cut", "host frozen"}
}

// results is what raw.json holds. Times are seconds.
type results struct {
	Machine  machine         `json:"machine"`
	Begun    time.Time       `json:"begun"`
	Variants []variantResult `json:"variants"`
}

type variantResult struct {
	Name     string         `json:"name"`
	Peer     bool           `json:"peer"`
	Settings stack.Settings `json:"settings"`
	Boots    []float64      `json:"boots"` // from the first process to full health
	// StoreWrites is entries a second in the raft log of the store, of an idle cluster.
	StoreWrites float64       `json:"store_writes"`
	Memory      []hostMemory  `json:"memory"`
	Faults      []faultResult `json:"faults"`
}

type hostMemory struct {
	Host      string        `json:"host"`
	Processes []hosts.Usage `json:"processes"`
}

type faultResult struct {
	Fault  string         `json:"fault"`
	Outage float64        `json:"outage"` // longest time between two acknowledgements
	Errors int            `json:"errors"`
	Codes  map[string]int `json:"codes,omitempty"`
	// Healthy is the time to full health, from the fault, or from its undoing where there is one; negative: not within
	// the limit.
	Healthy float64 `json:"healthy"`
	Acked   int     `json:"acknowledged"`
	Verdict string  `json:"verdict"`
	Detail  string  `json:"detail,omitempty"`
}

type bench struct {
	o        options
	dir      string
	binary   string
	pgBin    string
	account  *syscall.Credential
	variants []variant
	results  results
}

func newBench(o options) (*bench, error) {
	dir, err := os.MkdirTemp(o.dir, "haven-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, dir: dir, results: results{Begun: time.Now()}}
	if b.variants, err = chosen(o.variants); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if b.pgBin, err = programs.Find(0); err != nil {
		return nil, err
	}
	if b.account, err = postgresAccount(); err != nil {
		return nil, err
	}
	if b.binary, err = copyProgram(o.haven, dir); err != nil {
		return nil, err
	}
	b.results.Machine, err = describeMachine(dir, b.pgBin, b.binary)
	return b, err
}

func postgresAccount() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: install PostgreSQL (apt-get install postgresql)", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// copyProgram puts the program where every account can run it.
func copyProgram(from, dir string) (string, error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("%w: build it with make build", err)
	}
	to := filepath.Join(dir, "haven")
	return to, os.WriteFile(to, text, 0o755)
}

// variant runs one product with one set of settings: it starts it, watches it idle, and makes each fault.
func (b *bench) variant(ctx context.Context, v variant) error {
	b.results.Variants = append(b.results.Variants, variantResult{Name: v.Name, Peer: v.Peer, Settings: v.Settings})
	r := &b.results.Variants[len(b.results.Variants)-1]
	s, err := b.boot(ctx, v, r)
	if err != nil {
		return err
	}
	defer func() { end(s) }()
	if err := idle(ctx, s, r); err != nil {
		return err
	}
	for n := range b.o.repeat {
		for _, name := range split(b.o.faults) {
			f, err := b.fault(ctx, s, name, r)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", v.Name, name, err)
			}
			r.Faults = append(r.Faults, f)
			log.Printf("%s: %d/%d %s: outage %.2f s, %d errors, healthy after %.1f s, %s", v.Name, n+1, b.o.repeat, name, f.Outage, f.Errors, f.Healthy, f.Verdict)
			if f.Healthy >= 0 {
				continue
			}
			if s, err = b.again(ctx, s, v, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// end ends a cluster; nil: there is none.
func end(s *stack.Stack) {
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		log.Print(err)
	}
}

// again replaces a cluster that does not become healthy by a new one.
func (b *bench) again(ctx context.Context, s *stack.Stack, v variant, r *variantResult) (*stack.Stack, error) {
	log.Printf("%s: does not become healthy: starting a new cluster", v.Name)
	end(s)
	return b.boot(ctx, v, r)
}

// healthLimit is how long a cluster may take to become healthy.
const healthLimit = 2 * time.Minute

func (b *bench) boot(ctx context.Context, v variant, r *variantResult) (*stack.Stack, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	var p stack.Product = stack.Haven{Binary: b.binary}
	if v.Peer {
		p = stack.Patroni{BinDir: b.pgBin}
	}
	s, err := stack.New(v.Name, dir, p, v.Settings, b.account)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if _, err := s.AwaitHealthy(ctx, healthLimit); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	r.Boots = append(r.Boots, time.Since(begun).Seconds())
	log.Printf("%s: healthy %.1f s after its start", v.Name, time.Since(begun).Seconds())
	return s, nil
}

// idleFor is how long an idle cluster is watched.
const idleFor = 30 * time.Second

func idle(ctx context.Context, s *stack.Stack, r *variantResult) error {
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	before, err := s.StoreIndex(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, idleFor); err != nil {
		return err
	}
	after, err := s.StoreIndex(ctx)
	if err != nil {
		return err
	}
	r.StoreWrites = float64(after-before) / idleFor.Seconds()
	for _, h := range append(stack.Members(), stack.Balancer) {
		r.Memory = append(r.Memory, hostMemory{Host: h, Processes: s.Net.Host(h).Memory()})
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

const (
	warmUp = 2 * time.Second // of load, before and after
	// outageLimit is how long a fault may keep everybody from writing.
	outageLimit = 2 * time.Minute
	route       = "balancer"
)

// fault makes one fault on the primary under load, undoes it once somebody writes again, and waits for health.
func (b *bench) fault(ctx context.Context, s *stack.Stack, name string, v *variantResult) (faultResult, error) {
	r := faultResult{Fault: name, Healthy: -1}
	f, ok := stack.NamedFault(name)
	if !ok {
		return r, errors.New("there is no such fault")
	}
	primary, err := s.AwaitHealthy(ctx, healthLimit)
	if err != nil {
		return r, err
	}
	load, err := drill.Begin(ctx, drill.Load{
		Routes: map[string]string{route: s.WriteDSN()}, Dial: s.Dial, Clients: drill.Mix{Ledger: 8}, Note: v.Name + ": " + name,
	})
	if err != nil {
		return r, err
	}
	defer load.Stop()
	// A member that was down is a candidate again only after a loop of its agent.
	if err := sleep(ctx, warmUp+v.Settings.LoopWait); err != nil {
		return r, err
	}
	begun := time.Now()
	mark := check.Fault{Name: name, Target: primary, Begin: load.At(begun)}
	undo, err := f.Do(ctx, s, primary)
	if err != nil {
		return r, err
	}
	if undo != nil {
		if begun, err = undone(ctx, s, load, primary, undo); err != nil {
			return r, err
		}
		mark.End = load.At(begun)
	} else if err := acknowledged(ctx, load); err != nil {
		return r, err
	}
	load.Mark(mark)
	if r.Healthy, err = healthy(ctx, s, load, begun); err != nil {
		r.Detail = err.Error()
	}
	if err := sleep(ctx, warmUp); err != nil {
		return r, err
	}
	report, detail := verdict(ctx, s, load)
	r.Verdict, r.Detail = string(report.Verdict), r.Detail+detail
	if f, ok := report.Find(check.Ledger, route); ok {
		r.Outage, r.Errors, r.Codes, r.Acked = f.Gap.Seconds(), f.Failed+f.Unknown, f.Errors, f.OK
	}
	return r, nil
}

// healthy waits for full health and for writes to be acknowledged again. It returns the seconds since begun; negative with
// an error when it takes too long.
func healthy(ctx context.Context, s *stack.Stack, load *drill.Run, begun time.Time) (float64, error) {
	_, err := s.AwaitHealthy(ctx, healthLimit)
	if err == nil {
		err = acknowledged(ctx, load)
	}
	if err != nil {
		return -1, err
	}
	return time.Since(begun).Seconds(), nil
}

// acknowledged waits until writes are acknowledged again.
func acknowledged(ctx context.Context, load *drill.Run) error {
	return load.AwaitWrites(ctx, 100, outageLimit)
}

// undone waits until another member has taken over and writes are acknowledged again, and undoes the fault.
func undone(ctx context.Context, s *stack.Stack, load *drill.Run, old string, undo hosts.Undo) (time.Time, error) {
	err := errors.Join(s.AwaitTakeover(ctx, outageLimit, old), acknowledged(ctx, load), sleep(ctx, time.Second))
	begun := time.Now()
	return begun, errors.Join(err, undo(ctx))
}

// verdict ends the load, reads everything back and judges. Without a complete reading the report says why.
func verdict(ctx context.Context, s *stack.Stack, load *drill.Run) (r check.Report, detail string) {
	history := load.Stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := load.Final(ctx, s.WriteDSN()); err != nil {
		return check.Report{Verdict: check.Inconclusive}, err.Error()
	}
	if r = check.Judge(history); r.Verdict != check.Pass {
		detail = r.Text()
	}
	return r, detail
}
