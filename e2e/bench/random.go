package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
	"github.com/havenha/haven/internal/journal"
)

// randomResult is what one random fault cost.
type randomResult struct {
	Number   int     `json:"number"`
	Mode     string  `json:"mode"` // synchronous_mode
	Fault    string  `json:"fault"`
	Target   string  `json:"target"`
	Primary  bool    `json:"primary"` // the target was
	Lasted   float64 `json:"lasted"`  // seconds until the undoing; 0: none is needed
	Outage   float64 `json:"outage"`  // seconds
	Healthy  float64 `json:"healthy"` // seconds after the fault or its undoing; negative: not within the limit
	Acked    int     `json:"acknowledged"`
	Unknown  int     `json:"unknown"`
	Verdict  string  `json:"verdict"`
	Detail   string  `json:"detail,omitempty"`
	Problems string  `json:"problems,omitempty"` // the fault could not be made
}

// random makes faults by chance on Haven, one at a time, under load of every kind, and judges after each.
func (b *bench) random(ctx context.Context) error {
	log.Printf("seed %d: the same seed chooses the same faults", b.o.seed)
	rng := rand.New(rand.NewPCG(b.o.seed, 1))
	var all []randomResult
	modes := split(b.o.modes)
	for i, mode := range modes {
		v := variants()[1]
		v.Name, v.Settings.Synchronous = "random faults, "+mode, mode
		share := b.o.random / len(modes)
		if i == 0 {
			share += b.o.random % len(modes)
		}
		done, err := b.randomRun(ctx, v, share, rng)
		all = append(all, done...)
		if err = errors.Join(err, writeJSON(filepath.Join(b.o.out, "random.json"), all)); err != nil {
			return err
		}
	}
	return summarise(all)
}

func (b *bench) randomRun(ctx context.Context, v variant, n int, rng *rand.Rand) ([]randomResult, error) {
	var scratch variantResult
	var all []randomResult
	s, err := b.boot(ctx, v, &scratch)
	if err != nil {
		return nil, err
	}
	defer func() { end(s) }()
	for i := range n {
		r, err := b.randomFault(ctx, s, rng, i+1)
		if err != nil {
			return all, err
		}
		r.Mode = v.Settings.Synchronous
		all = append(all, r)
		log.Printf("%s %d/%d: %s on %s (primary: %v) for %.1f s: outage %.2f s, healthy after %.1f s, %d acknowledged, %d unknown: %s %s",
			v.Name, i+1, n, r.Fault, r.Target, r.Primary, r.Lasted, r.Outage, r.Healthy, r.Acked, r.Unknown, r.Verdict, r.Problems)
		if r.Healthy >= 0 && r.Verdict != string(check.Fail) {
			continue
		}
		log.Printf("kept for a look: %s\n%s", s.Dir, r.Detail)
		if s, err = b.again(ctx, s, v, &scratch); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (b *bench) randomFault(ctx context.Context, s *stack.Stack, rng *rand.Rand, number int) (randomResult, error) {
	faults := stack.Faults()
	f := faults[rng.IntN(len(faults))]
	hitPrimary := rng.IntN(5) < 3 || f.Name == "switchover"
	lasts := time.Duration(1000+rng.IntN(14000)) * time.Millisecond
	pick := rng.IntN(2)
	primary, err := s.AwaitHealthy(ctx, healthLimit)
	if err != nil {
		return randomResult{}, err
	}
	r := randomResult{Number: number, Fault: f.Name, Target: primary, Primary: hitPrimary, Healthy: -1}
	if !hitPrimary {
		r.Target = standby(primary, pick)
	}
	history, err := journal.CreateHistory(filepath.Join(s.Dir, fmt.Sprintf("history-%03d.jsonl", number)))
	if err != nil {
		return r, err
	}
	defer history.Close()
	load, err := drill.Begin(ctx, mixedLoad(s, history, number, r.Fault+" on "+r.Target))
	if err != nil {
		return r, err
	}
	defer load.Stop()
	if err := sleep(ctx, warmUp); err != nil {
		return r, err
	}
	if err := b.happen(ctx, s, f, load, lasts, &r); err != nil {
		return r, err
	}
	if err := sleep(ctx, warmUp); err != nil {
		return r, err
	}
	report, detail := verdict(ctx, s, load)
	r.Verdict, r.Detail = string(report.Verdict), r.Detail+detail
	if w, ok := report.Find(check.AnyWrite, route); ok {
		r.Outage, r.Acked, r.Unknown = w.Gap.Seconds(), w.OK, w.Unknown
	}
	return r, nil
}

// happen makes the fault, lets it last, undoes it, and waits for health.
func (b *bench) happen(ctx context.Context, s *stack.Stack, f stack.Fault, load *drill.Run, lasts time.Duration, r *randomResult) error {
	mark := check.Fault{Name: f.Name, Target: r.Target, Begin: load.Now()}
	undo, err := f.Do(ctx, s, r.Target)
	since := time.Now()
	switch {
	case err != nil:
		r.Problems = err.Error()
	case undo != nil:
		r.Lasted = lasts.Seconds()
		if since, err = endAfter(ctx, lasts, undo); err != nil {
			return err
		}
		mark.End = load.At(since)
	}
	load.Mark(mark)
	if r.Healthy, err = healthy(ctx, s, load, since); err != nil {
		r.Detail = err.Error()
	}
	return nil
}

func endAfter(ctx context.Context, lasts time.Duration, undo hosts.Undo) (time.Time, error) {
	err := sleep(ctx, lasts)
	now := time.Now()
	return now, errors.Join(err, undo(context.WithoutCancel(ctx)))
}

func standby(primary string, pick int) string {
	for _, m := range stack.Members() {
		if m == primary {
			continue
		}
		if pick == 0 {
			return m
		}
		pick--
	}
	return primary
}

// mixedLoad is load of every kind, kept in a history.
func mixedLoad(s *stack.Stack, history *journal.HistoryWriter, number int, note string) drill.Load {
	return drill.Load{
		Routes: map[string]string{route: s.WriteDSN()}, Dial: s.Dial, Members: addresses(s), History: history, Seed: uint64(number),
		Clients: drill.Mix{Ledger: 3, Registers: 2, Lists: 1, Transfers: 1, Readers: 1}, Note: note,
	}
}

func addresses(s *stack.Stack) map[string]string {
	out := map[string]string{}
	for _, m := range stack.Members() {
		out[s.Net.Host(m).At(stack.SQLPort)] = m
	}
	return out
}

func writeJSON(path string, v any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// summarise fails if any fault did harm.
func summarise(all []randomResult) error {
	acked, failed, stuck, slow := 0, 0, 0, 0
	for _, r := range all {
		acked += r.Acked
		if r.Verdict == string(check.Fail) {
			failed++
		}
		if r.Healthy < 0 {
			stuck++
		} else if r.Healthy > 30 {
			slow++
		}
	}
	log.Printf("%d faults, %d acknowledged writes: %d verdicts fail, %d not healthy within %s, %d later than 30 s", len(all), acked, failed, stuck, healthLimit, slow)
	if failed > 0 || stuck > 0 {
		return errors.New("a fault did harm: see above")
	}
	return nil
}
