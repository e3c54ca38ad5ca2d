package api

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// orders is an operator that notes what it is asked, and answers as a test says.
type orders struct {
	asked  string
	answer error
}

func (o *orders) Restart(_ context.Context, r ha.Restart) error {
	o.asked = fmt.Sprintf("restart %+v", r)
	return o.answer
}

func (o *orders) ScheduleRestart(_ context.Context, r ha.Restart, at time.Time) error {
	o.asked = fmt.Sprintf("schedule %+v at %s", r, at.UTC().Format(time.RFC3339))
	return o.answer
}

func (o *orders) UnscheduleRestart(context.Context) (bool, error) { return o.answer == nil, nil }

func (o *orders) Reinitialize(_ context.Context, r ha.Reinit, force bool) error {
	o.asked = fmt.Sprintf("reinitialize %+v force %v", r, force)
	return o.answer
}

// TestOrders holds codes and texts against Patroni's.
func TestOrders(t *testing.T) {
	failed := errors.New("it broke")
	for _, c := range []struct {
		method, path, body string
		answer             error
		code               int
		want, asked        string
	}{
		{"POST", "/restart", "", nil, 200, "restarted successfully", "restart {Role: Version: Below:0 Pending:false Timeout:0s}"},
		{"POST", "/restart", `{"role":"replica","postgres_version":"15.6","timeout":30,"restart_pending":true}`, nil, 200, "restarted successfully", "restart {Role:replica Version:15.6 Below:150006 Pending:true Timeout:30s}"},
		{"POST", "/restart", `{"timeout":"soon"}`, nil, 400, "Timeout should be a positive number of seconds", ""},
		{"POST", "/restart", `{"postgres_version":"9.6.3","timeout":"2 min"}`, nil, 200, "restarted successfully", "restart {Role: Version:9.6.3 Below:90603 Pending:false Timeout:2m0s}"},
		{"POST", "/restart", `{"timeout":-1}`, nil, 400, "Timeout should be a positive number of seconds", ""},
		{"POST", "/restart", `{"role":"king"}`, nil, 400, "PostgreSQL role should be either primary, standby_leader, or replica", ""},
		{"POST", "/restart", `{"postgres_version":"new"}`, nil, 400, "Invalid PostgreSQL version: new: it should look like 15.6", ""},
		{"POST", "/restart", `{"colour":"red"}`, nil, 400, "Unknown filter for the scheduled restart: colour", ""},
		{"POST", "/restart", "{}", ha.NotMet, 503, "restart conditions are not satisfied", "restart {Role: Version: Below:0 Pending:false Timeout:0s}"},
		{"POST", "/restart", "{}", fmt.Errorf("restart: %w", ha.ErrStillStarting), 503, "postgres is still starting", "restart {Role: Version: Below:0 Pending:false Timeout:0s}"},
		{"POST", "/restart", "{}", failed, 503, "restart failed: it broke", "restart {Role: Version: Below:0 Pending:false Timeout:0s}"},
		{"POST", "/restart", `{"schedule":"2131-05-06T03:00:00+02:00","role":"primary"}`, nil, 202, "Restart scheduled", "schedule {Role:primary Version: Below:0 Pending:false Timeout:0s} at 2131-05-06T01:00:00Z"},
		{"POST", "/restart", `{"schedule":"2131-05-06T03:00:00Z"}`, ha.ErrAlreadyScheduled, 409, "Another restart is already scheduled", "schedule {Role: Version: Below:0 Pending:false Timeout:0s} at 2131-05-06T03:00:00Z"},
		{"POST", "/restart", `{"schedule":"2131-05-06T03:00:00"}`, nil, 400, "Timezone information is mandatory for the scheduled restart", ""},
		{"POST", "/restart", `{"schedule":"2001-05-06T03:00:00Z"}`, nil, 422, "Cannot schedule restart in the past", ""},
		{"POST", "/restart", `{"schedule":"soon"}`, nil, 422, "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601", ""},
		{"DELETE", "/restart", "", nil, 200, "scheduled restart deleted", ""},
		{"DELETE", "/restart", "", failed, 404, "no restarts are scheduled", ""},
		{"POST", "/reinitialize", "", nil, 200, "reinitialize started", "reinitialize {FromLeader:false} force false"},
		{"POST", "/reinitialize", `{"force":true,"from_leader":true}`, nil, 200, "reinitialize started", "reinitialize {FromLeader:true} force true"},
		{"POST", "/reinitialize", "{}", ha.Refusal("I am the leader, can not reinitialize"), 503, "I am the leader, can not reinitialize", "reinitialize {FromLeader:false} force false"},
	} {
		b := newBench(t, leader(t), nil, nil)
		o := &orders{answer: c.answer}
		b.server.opt.Operator = o
		if code, text, _ := b.do(c.method, c.path, c.body); code != c.code || text != c.want || o.asked != c.asked {
			t.Errorf("%s %s %s: %d %q, asked %q", c.method, c.path, c.body, code, text, o.asked)
		}
	}
}

func TestOrdersThatAreRefusedEverywhere(t *testing.T) {
	l := leader(t)
	l.Dynamic = dynamic(t, `{"pause": true}`)
	b := newBench(t, l, nil, nil)
	if code, text, _ := b.do("POST", "/restart", "{}"); code != 503 || text != "this node has no PostgreSQL" {
		t.Errorf("without a server: %d %s", code, text)
	}
	b.server.opt.Operator = &orders{}
	if code, text, _ := b.do("POST", "/restart", `{"schedule":"2131-05-06T03:00:00Z"}`); code != 500 || text != "Can't schedule restart in the paused state" {
		t.Errorf("in maintenance mode: %d %s", code, text)
	}
	if code, _, _ := b.do("POST", "/restart", "["); code != 400 {
		t.Errorf("no JSON: %d", code)
	}
}
