package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
	"github.com/havenha/haven/internal/journal"
)

// daySettings are those that stack.Days is written for.
func daySettings() stack.Settings {
	return stack.Settings{TTL: 10 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 4 * time.Second, Synchronous: "on"}
}

// smallDisk is the size of the file systems on which disks are filled.
const smallDisk = 400 << 20

// movesOnce are the days on which the leader gives leadership away by itself, at most once in movePause: a server that crashes again
// before that is started in place, and one whose disk is full stays.
func movesOnce() []string { return []string{"postmaster killed", "disk full"} }

const movePause = 5*time.Minute + 30*time.Second

// soon is how long a cluster may take to be whole again after the end of any fault.
const soon = 30 * time.Second

// days has Haven live through every day as often as asked, and judges after each.
func (b *bench) days(ctx context.Context) error {
	usual, small := variant{Name: "days", Settings: daySettings()}, variant{Name: "days on small disks", Settings: daySettings()}
	small.Settings.SmallDisk = smallDisk
	failsafe := variant{Name: "days in failsafe mode", Settings: daySettings()}
	failsafe.Settings.Failsafe = true
	var all []dayResult
	if err := b.anew(daysFile); err != nil {
		return err
	}
	for _, v := range []variant{usual, small, failsafe} {
		chosen := slices.DeleteFunc(b.chosenDays(), func(d stack.Day) bool { return !v.Settings.Fit(d) })
		if len(chosen) == 0 {
			continue
		}
		if err := b.live(ctx, v, chosen, &all); err != nil {
			return err
		}
	}
	for _, r := range all {
		if r.bad() {
			return errors.New("a day did not end well: see above")
		}
	}
	return nil
}

func (b *bench) chosenDays() []stack.Day {
	names := split(b.o.only)
	return slices.DeleteFunc(stack.Days(), func(d stack.Day) bool { return b.o.only != "" && !slices.Contains(names, d.Name) })
}

// dayResult is how one day went.
type dayResult struct {
	Day     string  `json:"day"`
	Target  string  `json:"target"`
	Outage  float64 `json:"outage"`  // seconds between two acknowledgements, at most
	Healthy float64 `json:"healthy"` // seconds after the undoing; negative: not within the limit
	Acked   int     `json:"acknowledged"`
	Errors  int     `json:"errors"` // failed or unknown
	Verdict string  `json:"verdict"`
	Wrong   string  `json:"wrong,omitempty"` // what else was not as expected
}

func (r dayResult) bad() bool {
	return r.Healthy < 0 || r.Healthy > soon.Seconds() || r.Verdict != string(check.Pass) || r.Wrong != ""
}

// live adds to all, and saves that after each day: hours of work are not lost for a fault in the last minute.
func (b *bench) live(ctx context.Context, v variant, days []stack.Day, all *[]dayResult) error {
	var scratch variantResult
	s, err := b.boot(ctx, v, &scratch)
	if err != nil {
		return err
	}
	defer func() { end(s) }()
	var moved time.Time
	for n := range b.o.days {
		for _, d := range days {
			if slices.Contains(movesOnce(), d.Name) {
				if time.Since(moved) < movePause { // a second handover would be against the rules
					d.Leadership = stack.Either
				}
				moved = time.Now()
			}
			r, err := b.day(ctx, s, d, n)
			if err != nil {
				return fmt.Errorf("%s: %w", d.Name, err)
			}
			*all = append(*all, r)
			if err := record(b.o.out, daysFile, r, writeDays); err != nil {
				return err
			}
			log.Printf("%d/%d %s on %s: outage %.2f s, %d errors, healthy after %.1f s, %d acknowledged: %s %s", n+1, b.o.days, d.Name, r.Target, r.Outage, r.Errors, r.Healthy, r.Acked, r.Verdict, r.Wrong)
			if r.Healthy >= 0 && r.Verdict == string(check.Pass) {
				continue
			}
			log.Printf("kept for a look: %s", s.Dir)
			if s, err = b.again(ctx, s, v, &scratch); err != nil {
				return err
			}
		}
	}
	return nil
}

const daysFile = "days.json"

func writeDays(dir string, all []dayResult) error {
	return os.WriteFile(filepath.Join(dir, "days.md"), []byte(renderDays(all)), 0o644)
}

// day makes the fault, waits for what is expected, undoes it, and waits for health.
func (b *bench) day(ctx context.Context, s *stack.Stack, d stack.Day, number int) (dayResult, error) {
	primary, err := s.AwaitHealthy(ctx, healthLimit)
	if err != nil {
		return dayResult{}, err
	}
	r := dayResult{Day: d.Name, Target: d.Target(primary, number), Healthy: -1}
	history, err := journal.CreateHistory(filepath.Join(s.Dir, fmt.Sprintf("history-%s-%d.jsonl", strings.ReplaceAll(d.Name, " ", "-"), number)))
	if err != nil {
		return r, err
	}
	defer history.Close()
	load, err := drill.Begin(ctx, mixedLoad(s, history, number, d.Name))
	if err != nil {
		return r, err
	}
	defer load.Stop()
	if err := sleep(ctx, warmUp+s.Settings.LoopWait); err != nil {
		return r, err
	}
	mark := check.Fault{Name: d.Name, Target: r.Target, Begin: load.Now()}
	undo, err := d.Do(ctx, s, r.Target)
	if err != nil {
		return r, err
	}
	since, wrong, err := b.through(ctx, s, load, d, primary, undo)
	if err != nil {
		return r, err
	}
	mark.End = load.At(since)
	load.Mark(mark)
	if r.Healthy, err = healthy(ctx, s, load, since); err != nil {
		wrong += err.Error()
	} else if now, ok := s.Healthy(ctx); ok {
		wrong += d.Broken(primary, now)
	}
	if err := sleep(ctx, warmUp); err != nil {
		return r, err
	}
	report, detail := verdict(ctx, s, load)
	r.Verdict, r.Wrong = string(report.Verdict), wrong+detail
	if w, ok := report.Find(check.AnyWrite, route); ok {
		r.Outage, r.Acked, r.Errors = w.Gap.Seconds(), w.OK, w.Failed+w.Unknown
	}
	return r, nil
}

// through lets the fault last as long as it has to, and undoes it. It tells when that was.
func (b *bench) through(ctx context.Context, s *stack.Stack, load *drill.Run, d stack.Day, primary string, undo hosts.Undo) (since time.Time, wrong string, err error) {
	since = time.Now()
	if d.Leadership == stack.Moves {
		if err := errors.Join(s.AwaitTakeover(ctx, outageLimit, primary), acknowledged(ctx, load)); err != nil {
			wrong = err.Error() + "; "
		}
	}
	if undo == nil {
		return since, wrong, nil
	}
	since, err = endAfter(ctx, d.Lasts, undo)
	return since, wrong, err
}

// renderDays is the page with what the days cost.
func renderDays(all []dayResult) string {
	var b strings.Builder
	b.WriteString("# Bad days\n\nWhat `make days` measured on the machine of [the comparison](README.md); it writes this page and `days.json` again. Two or more runs\nmay have gone on at once, on a machine with other work to do: then its times are longer than they need be. One cluster of three members, ttl 10 s,\n")
	b.WriteString("synchronous, under load of every kind; after each fault all that was acknowledged is read back and judged. **Outage** is the\nlongest time between two acknowledged writes, **health** the time from the undoing of the fault until all is as before, in\nseconds: median, least to most. **Well** counts the runs that lost nothing, were healthy within 30 s, and in which the leadership\nmoved or stayed as it has to.\n\n| day | runs | well | outage | errors | health | acknowledged |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, d := range stack.Days() {
		runs := slices.DeleteFunc(slices.Clone(all), func(r dayResult) bool { return r.Day != d.Name })
		if len(runs) == 0 {
			continue
		}
		well, acked := 0, 0
		for _, r := range runs {
			acked += r.Acked
			if !r.bad() {
				well++
			}
		}
		of := func(f func(dayResult) float64) string { return spread(values(runs, f), "%.1f") }
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %s | %d |\n", d.Name, len(runs), well, of(func(r dayResult) float64 { return r.Outage }),
			spread(values(runs, func(r dayResult) float64 { return float64(r.Errors) }), "%.0f"), of(func(r dayResult) float64 { return r.Healthy }), acked)
	}
	for _, r := range all {
		if r.bad() {
			fmt.Fprintf(&b, "\n- %s on %s: %s, healthy after %.1f s. %s", r.Day, r.Target, r.Verdict, r.Healthy, strings.TrimSpace(r.Wrong))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func values(runs []dayResult, of func(dayResult) float64) []float64 {
	var out []float64
	for _, r := range runs {
		out = append(out, of(r))
	}
	slices.Sort(out)
	return out
}
