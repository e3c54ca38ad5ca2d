package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/ha"
)

// maxLine bounds one line of a journal.
const maxLine = 16 << 20

// replayed is the outcome of a replay.
type replayed struct {
	Decisions int       `json:"decisions"`
	Other     int       `json:"other_entries"` // outcomes, which are no decisions
	Different []differs `json:"different"`
}

// differs is a decision that is not made again from the same inputs.
type differs struct {
	File     string      `json:"file"`
	Line     int         `json:"line"`
	Recorded ha.Decision `json:"recorded"`
	Now      ha.Decision `json:"now"`
}

// replay decides every entry of a journal's files again.
func (c *console) replay(files []string) error {
	out := replayed{Different: []differs{}}
	for _, file := range files {
		if err := c.replayFile(file, &out); err != nil {
			return err
		}
	}
	var err error
	if c.structured() {
		err = c.emit(c.out, out)
	} else {
		err = c.showReplay(out)
	}
	if err == nil && len(out.Different) > 0 {
		return verdictCode(ExitMismatch)
	}
	return err
}

func (c *console) replayFile(file string, out *replayed) error {
	in := c.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return &Failure{Code: ExitNotFound, What: "the journal cannot be read: " + err.Error(), Next: "haven explain --replay STATE_DIR/nodes/SCOPE/NAME/journal/*.jsonl"}
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	if err := decideAgain(in, file, out); err != nil {
		return &Failure{Code: ExitFailed, What: fmt.Sprintf("%s, %v", file, err), Means: "The file is not a journal of Haven, or its last line was cut off."}
	}
	return nil
}

func decideAgain(in io.Reader, file string, out *replayed) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		var e agent.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if e.View == nil || e.Decision == nil {
			out.Other++
			continue
		}
		var m ha.Memory
		if e.Memory != nil {
			m = *e.Memory
		}
		now, _ := ha.Decide(*e.View, m)
		out.Decisions++
		if !same(now, *e.Decision) {
			out.Different = append(out.Different, differs{File: file, Line: n, Recorded: *e.Decision, Now: now})
		}
	}
	return lines.Err()
}

// same compares decisions as the journal holds them: what JSON does not carry does not count.
func same(a, b ha.Decision) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func (c *console) showReplay(r replayed) error {
	if len(r.Different) == 0 {
		_, err := fmt.Fprintf(c.out, "the same: all %d decisions are made again from their recorded inputs\n", r.Decisions)
		return err
	}
	fmt.Fprintf(c.out, "DIFFERENT: %d of %d decisions are not made again\n", len(r.Different), r.Decisions)
	for _, d := range r.Different {
		fmt.Fprintf(c.out, "  %s, line %d\n    recorded %s (%s): %s\n    now      %s (%s): %s\n", d.File, d.Line,
			d.Recorded.Action.Kind, d.Recorded.Reason.Code, d.Recorded.Reason.Text, d.Now.Action.Kind, d.Now.Reason.Code, d.Now.Reason.Text)
	}
	c.say("  next: compare the versions: another version of haven may decide otherwise; if it is the same one, please report it")
	return nil
}
