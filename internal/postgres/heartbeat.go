package postgres

import (
	"context"
	"errors"

	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// heartbeatName is what that session is called in pg_stat_activity: what looks for Patroni's finds it.
const heartbeatName = "Patroni heartbeat"

// Lost is closed when the present heartbeat session breaks: the server crashed, was stopped, or does not answer. Each
// session has a channel of its own, so ask again after every Probe. Nil, which blocks for ever, while there is none.
func (i *Instance) Lost() <-chan struct{} { return i.heart.Lost() }

// LossReason is why the last heartbeat session ended, as the server told it (57P01: stopped by an administrator,
// 57P02: another process crashed) or as the connection did; nil when none has ended.
func (i *Instance) LossReason() error { return i.heart.LossReason() }

// heartQuery runs one statement on the heartbeat session; see session.Heartbeat.
func (i *Instance) heartQuery(ctx context.Context, sql string) ([][]string, error) {
	return i.heart.Query(ctx, sql)
}

// Busy tells that a Probe was not made, since others had asked first and too little time was left. It says nothing about the server.
func Busy(err error) bool { return errors.Is(err, session.ErrBusy) }

func (i *Instance) heartConfig() (*pgconn.Config, error) {
	cfg, err := i.localConfig(i.opt.Database, heartbeatName)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["statement_timeout"] = "2000"
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["synchronous_commit"] = "local"
	return cfg, nil
}
