// Package disk watches the room of the file systems that a node writes to, and foretells when one will be full.
//
// Asking a file system may hang for ever (NFS, a dead device), so each is asked in a goroutine of its own, never twice at
// a time, and reports are read from memory. What to do about a full disk is left to the caller.
package disk

import (
	"fmt"
	"strings"
	"time"
)

// When a file system is reported: it will be full within Ahead at the rate of the last Window, or has less than LowRatio
// of its room left. Rates of less than shortest are not believed.
const (
	Window   = time.Hour
	Ahead    = 4 * time.Hour
	LowRatio = 0.10
	shortest = 5 * time.Minute
)

// Sample is the room of a file system at one moment, in bytes. Free is what an unprivileged user may still use, Total the
// sum of that and what is used (as df shows them).
type Sample struct {
	At          time.Time
	Free, Total uint64
}

// Forecast tells in what time a file system will be full, by the oldest and the newest sample of the last hour; ok is
// false where it does not fill, or too little is known. Samples are in order of time.
func Forecast(history []Sample) (left time.Duration, ok bool) {
	if len(history) < 2 {
		return 0, false
	}
	last := history[len(history)-1]
	first := last
	for _, s := range history {
		if last.At.Sub(s.At) <= Window {
			first = s
			break
		}
	}
	span := last.At.Sub(first.At)
	if span < shortest || first.Total != last.Total || last.Free >= first.Free {
		return 0, false
	}
	perSecond := float64(first.Free-last.Free) / span.Seconds()
	seconds := float64(last.Free) / perSecond
	if seconds > (365 * 24 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// FileSystem is one file system, by the newest sample.
type FileSystem struct {
	Uses []string // what of the node lies there: data, wal, tablespace 16385, state
	Path string   // one of the directories there
	Sample
	FullIn *time.Duration // at the rate of the last hour; nil: it does not fill, or that is not known
	// Hung is since when the file system has not answered; nil: it answers. Error is why it could not be asked.
	Hung  *time.Time
	Error string
}

// Ratio is the share of the room that is free; 1 where nothing is known.
func (f FileSystem) Ratio() float64 {
	if f.Total == 0 {
		return 1
	}
	return float64(f.Free) / float64(f.Total)
}

// Problem says what is not as it should be and what to do; empty: all is well.
func (f FileSystem) Problem() string {
	where := fmt.Sprintf("the file system of %s (%s)", strings.Join(f.Uses, ", "), f.Path)
	switch {
	case f.Hung != nil:
		return fmt.Sprintf("%s has not answered since %s: look at the device or the mount", where, f.Hung.UTC().Format("15:04:05 MST"))
	case f.Error != "":
		return fmt.Sprintf("%s cannot be asked for its room: %s", where, f.Error)
	case f.FullIn != nil && *f.FullIn < Ahead:
		return fmt.Sprintf("%s will be full in about %s at the rate of the last hour (%s left): make room or grow it; inactive slots and a failing archive hold back WAL", where, rough(*f.FullIn), size(f.Free))
	case f.Ratio() < LowRatio:
		return fmt.Sprintf("%s has %.1f %% left (%s): make room or grow it", where, f.Ratio()*100, size(f.Free))
	}
	return ""
}

func rough(d time.Duration) string {
	if d < 2*time.Hour {
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

func size(n uint64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, next
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
