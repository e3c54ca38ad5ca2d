package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// restartBody reads the conditions of a restart; schedule is empty for one at once. Keys are checked in alphabetical
// order, so that of several mistakes always the same one is told.
func restartBody(body map[string]any) (r ha.Restart, schedule string, v verdict) {
	keys := make([]string, 0, len(body))
	for k := range body {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		value := body[k]
		if value == nil {
			continue
		}
		text := fmt.Sprint(value)
		switch k {
		case "schedule":
			schedule = text
		case "role":
			if r.Role = text; !slices.Contains([]string{"primary", "standby_leader", "replica"}, text) {
				return r, "", verdict{400, "PostgreSQL role should be either primary, standby_leader, or replica"}
			}
		case "postgres_version":
			var err error
			if r.Version = text; text != "" {
				if r.Below, err = serverNumber(text); err != nil {
					return r, "", verdict{400, err.Error()}
				}
			}
		case "timeout":
			if r.Timeout = seconds(text); r.Timeout <= 0 {
				return r, "", verdict{400, "Timeout should be a positive number of seconds"}
			}
		case "restart_pending":
			r.Pending = text != "false"
		default:
			return r, "", verdict{400, "Unknown filter for the scheduled restart: " + k}
		}
	}
	return r, schedule, verdict{}
}

// serverNumber turns 15.6 or 9.6.3 into PostgreSQL's number of the version, 150006 or 90603.
func serverNumber(text string) (int, error) {
	parts := strings.Split(text, ".")
	n := make([]int, 3)
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 || i > 2 {
			return 0, fmt.Errorf("Invalid PostgreSQL version: %s: it should look like 15.6", text)
		}
		n[i] = v
	}
	if n[0] >= 10 {
		return n[0]*10000 + n[1], nil
	}
	return n[0]*10000 + n[1]*100 + n[2], nil
}

// seconds reads a number of seconds, or a time with a unit; 0: it is neither.
func seconds(text string) time.Duration {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(n * float64(time.Second))
	}
	d, err := time.ParseDuration(strings.NewReplacer(" ", "", "min", "m").Replace(text)) // PostgreSQL writes minutes as min
	if err != nil {
		return 0
	}
	return d
}

// optional reads a body that may be absent; where it is none it has answered.
func optional(w http.ResponseWriter, r *http.Request) (map[string]any, bool) {
	if r.ContentLength == 0 {
		return nil, true
	}
	var body map[string]any
	d := json.NewDecoder(r.Body)
	d.UseNumber()
	if err := d.Decode(&body); err != nil {
		errorPage(w, http.StatusBadRequest, "")
		return nil, false
	}
	return body, true
}

// operator gives the member's operator; where there is none it has answered.
func (s *Server) operator(w http.ResponseWriter) (Operator, bool) {
	if s.opt.Operator == nil {
		text(w, no, "this node has no PostgreSQL")
		return nil, false
	}
	return s.opt.Operator, true
}

// postRestart restarts the server at once, and answers when that is over, or has it restarted at a given time.
func (s *Server) postRestart(w http.ResponseWriter, r *http.Request) {
	op, there := s.operator(w)
	if !there {
		return
	}
	body, read := optional(w, r)
	if !read {
		return
	}
	order, schedule, v := restartBody(body)
	paused := s.opt.Source.Status().Dynamic.Pause
	if v.code == 0 && schedule != "" && paused {
		v = verdict{http.StatusInternalServerError, "Can't schedule restart in the paused state"}
	}
	if v.code != 0 {
		text(w, v.code, v.text)
		return
	}
	if schedule != "" {
		s.scheduleRestart(w, r, op, order, schedule)
		return
	}
	v = restartVerdict(op.Restart(r.Context(), order))
	text(w, v.code, v.text)
}

func restartVerdict(err error) verdict {
	var refusal ha.Refusal
	switch {
	case err == nil:
		return verdict{ok, "restarted successfully"}
	case errors.As(err, &refusal):
		return verdict{no, string(refusal)}
	case errors.Is(err, ha.ErrStillStarting):
		return verdict{no, ha.ErrStillStarting.Error()}
	}
	return verdict{no, "restart failed: " + err.Error()}
}

func (s *Server) scheduleRestart(w http.ResponseWriter, r *http.Request, op Operator, order ha.Restart, schedule string) {
	at, v := scheduled(schedule, "restart", time.Now())
	if v.code != 0 {
		text(w, v.code, v.text)
		return
	}
	err := op.ScheduleRestart(r.Context(), order, *at)
	switch {
	case err == nil:
		text(w, http.StatusAccepted, "Restart scheduled")
	case errors.Is(err, ha.ErrAlreadyScheduled):
		text(w, http.StatusConflict, "Another restart is already scheduled")
	default:
		text(w, no, err.Error())
	}
}

// deleteRestart takes a scheduled restart back.
func (s *Server) deleteRestart(w http.ResponseWriter, r *http.Request) {
	op, there := s.operator(w)
	if !there {
		return
	}
	was, err := op.UnscheduleRestart(r.Context())
	switch {
	case err != nil:
		text(w, no, err.Error())
	case was:
		text(w, ok, "scheduled restart deleted")
	default:
		text(w, http.StatusNotFound, "no restarts are scheduled")
	}
}

// postReinitialize has the data of this standby replaced by a new copy.
func (s *Server) postReinitialize(w http.ResponseWriter, r *http.Request) {
	op, there := s.operator(w)
	if !there {
		return
	}
	body, read := optional(w, r)
	if !read {
		return
	}
	force, _ := body["force"].(bool) // absent is false
	fromLeader, _ := body["from_leader"].(bool)
	err := op.Reinitialize(r.Context(), ha.Reinit{FromLeader: fromLeader}, force)
	if err != nil {
		text(w, no, err.Error())
		return
	}
	text(w, ok, "reinitialize started")
}
