package drill

import (
	"context"
	"fmt"

	"github.com/havenha/haven/internal/check"
)

// listLength is how long a list grows before the next one is begun: every append answers with all of it.
const listLength = 48

// ledgerTurn inserts a row, every second time in a transaction.
func ledgerTurn(ctx context.Context, c *client, n int) {
	insert := "INSERT INTO " + c.run.tables.ledger + " (id, client) VALUES ($1, $2) RETURNING" + who
	c.do(ctx, check.Operation{Kind: check.Ledger, InTransaction: n%2 == 1}, func(ctx context.Context, a *attempt) error {
		return c.ask(ctx, a, insert, []any{a.ID, c.number})
	})
}

// registerTurn writes, reads or compares and sets one register.
func registerTurn(ctx context.Context, c *client, _ int) {
	key := fmt.Sprintf("r%d", c.rng.IntN(c.run.load.Registers))
	switch c.rng.IntN(4) {
	case 0:
		c.do(ctx, check.Operation{Kind: check.RegisterWrite, Key: key}, c.setRegister)
	case 1:
		c.compareAndSet(ctx, key)
	default:
		c.do(ctx, check.Operation{Kind: check.RegisterRead, Key: key, InTransaction: c.rng.IntN(2) == 0}, c.lockRegister)
	}
}

func (c *client) setRegister(ctx context.Context, a *attempt) error {
	return c.ask(ctx, a, "UPDATE "+c.run.tables.register+" SET value = $2 WHERE key = $1 RETURNING"+who, []any{a.Key, a.ID})
}

// lockRegister reads under a row lock. The lock is logged and its transaction commits as a write does, so that the
// server's answer says that it was still the primary (PostgreSQL manual, Explicit Locking: row locks write to disk).
func (c *client) lockRegister(ctx context.Context, a *attempt) error {
	var v int64
	err := c.ask(ctx, a, "SELECT value,"+who+" FROM "+c.run.tables.register+" WHERE key = $1 FOR UPDATE", []any{a.Key}, &v)
	a.Output = &check.Output{Value: v}
	return err
}

// compareAndSet expects what another operation of this client has just read, so that it succeeds now and then.
func (c *client) compareAndSet(ctx context.Context, key string) {
	read := c.do(ctx, check.Operation{Kind: check.RegisterRead, Key: key}, c.lockRegister)
	if read.Outcome != check.OK {
		return
	}
	in := &check.Input{Expect: read.Output.Value}
	c.do(ctx, check.Operation{Kind: check.RegisterCAS, Key: key, Input: in, InTransaction: true}, func(ctx context.Context, a *attempt) error {
		if err := c.lockRegister(ctx, a); err != nil || a.Output.Value != in.Expect {
			return err
		}
		return c.setRegister(ctx, a)
	})
}

// listTurn appends to the list of the time, and now and then reads the one that it appended to last.
func listTurn(ctx context.Context, c *client, n int) {
	if n%4 == 3 && c.lastList != "" {
		read := "SELECT value," + who + " FROM " + c.run.tables.list + " WHERE key = $1 FOR UPDATE"
		c.do(ctx, check.Operation{Kind: check.ListRead, Key: c.lastList}, func(ctx context.Context, a *attempt) error {
			a.Output = &check.Output{}
			return c.ask(ctx, a, read, []any{a.Key}, &a.Output.List)
		})
		return
	}
	number := c.run.list.Load()
	add := "INSERT INTO " + c.run.tables.list + " AS l (key, value) VALUES ($1, ARRAY[$2::bigint]) ON CONFLICT (key) DO UPDATE SET value = l.value || $2::bigint RETURNING value," + who
	o := check.Operation{Kind: check.ListAppend, Key: fmt.Sprintf("l%d", number), InTransaction: c.rng.IntN(2) == 0}
	done := c.do(ctx, o, func(ctx context.Context, a *attempt) error {
		a.Output = &check.Output{}
		return c.ask(ctx, a, add, []any{a.Key, a.ID}, &a.Output.List)
	})
	if done.Outcome != check.OK {
		return
	}
	c.lastList = done.Key
	if len(done.Output.List) >= listLength {
		c.run.list.CompareAndSwap(number, number+1)
	}
}

// transferTurn moves money. The accounts are locked in order, so that no two transfers wait for each other.
func transferTurn(ctx context.Context, c *client, _ int) {
	from := c.rng.IntN(c.run.load.Accounts)
	to := (from + 1 + c.rng.IntN(c.run.load.Accounts-1)) % c.run.load.Accounts
	in := &check.Input{From: from, To: to, Amount: 1 + c.rng.Int64N(20)}
	t := c.run.tables
	c.do(ctx, check.Operation{Kind: check.Transfer, Input: in, InTransaction: true}, func(ctx context.Context, a *attempt) error {
		change := "UPDATE " + t.account + " SET balance = balance + $2 WHERE id = $1"
		first, second, amount := in.From, in.To, -in.Amount
		if in.To < in.From {
			first, second, amount = in.To, in.From, in.Amount
		}
		if _, err := a.conn.Exec(ctx, change, first, amount); err != nil {
			return err
		}
		if _, err := a.conn.Exec(ctx, change, second, -amount); err != nil {
			return err
		}
		insert := "INSERT INTO " + t.transfer + " (id, source, target, amount) VALUES ($1, $2, $3, $4) RETURNING" + who
		return c.ask(ctx, a, insert, []any{a.ID, in.From, in.To, in.Amount})
	})
}

// readerTurn writes a row that nobody else writes, reads it, and adds the accounts up.
func readerTurn(ctx context.Context, c *client, n int) {
	mine := fmt.Sprintf("c%d", c.number)
	switch n % 3 {
	case 0:
		put := "INSERT INTO " + c.run.tables.session + " (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value RETURNING" + who
		c.do(ctx, check.Operation{Kind: check.SessionWrite, Key: mine}, func(ctx context.Context, a *attempt) error {
			return c.ask(ctx, a, put, []any{a.Key, a.ID})
		})
	case 1:
		get := "SELECT coalesce((SELECT value FROM " + c.run.tables.session + " WHERE key = $1), 0)," + who
		c.do(ctx, check.Operation{Kind: check.SessionRead, Key: mine}, func(ctx context.Context, a *attempt) error {
			a.Output = &check.Output{}
			return c.ask(ctx, a, get, []any{a.Key}, &a.Output.Value)
		})
	default:
		c.sum(ctx)
	}
}

func (c *client) sum(ctx context.Context) {
	add := "SELECT (SELECT coalesce(sum(balance), 0)::bigint FROM " + c.run.tables.account + ")," + who
	c.do(ctx, check.Operation{Kind: check.Sum}, func(ctx context.Context, a *attempt) error {
		a.Output = &check.Output{}
		return c.ask(ctx, a, add, nil, &a.Output.Value)
	})
}
