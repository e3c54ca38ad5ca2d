package slots

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/durable"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// State is the state file of a logical slot: pg_replslot/<name>/state.
type State struct {
	Name               string
	Restart, Confirmed cluster.LSN
	raw                []byte
}

// Layout of the file, the same from PostgreSQL 13 to 18 as far as it is read here (src/backend/replication/slot.c,
// ReplicationSlotOnDisk): magic, checksum, version and length of 4 bytes each, then the slot's data, which begin with the
// name. The checksum is CRC-32C of all after itself.
const (
	stateMagic    = 0x1051CA1
	stateName     = 16
	stateKind     = 84 // 0: persistent
	stateXmin     = 88
	stateRestart  = 96
	stateInvalid  = 104
	stateConfirms = 112
	stateLeast    = 120
)

// readState takes a state file apart, and refuses one that is not whole, not of that slot, or of a slot that is no use.
func readState(name string, raw []byte) (State, error) {
	n := binary.NativeEndian
	if len(raw) < stateLeast || n.Uint32(raw) != stateMagic {
		return State{}, fmt.Errorf("the state of slot %s is not a file of PostgreSQL's that is known", name)
	}
	if crc32.Checksum(raw[8:], crc32.MakeTable(crc32.Castagnoli)) != n.Uint32(raw[4:]) {
		return State{}, fmt.Errorf("the state of slot %s has a wrong checksum", name)
	}
	if got, _, _ := bytes.Cut(raw[stateName:stateName+64], []byte{0}); string(got) != name {
		return State{}, fmt.Errorf("the state of slot %s is that of %s", name, got)
	}
	s := State{Name: name, Restart: cluster.LSN(n.Uint64(raw[stateRestart:])), Confirmed: cluster.LSN(n.Uint64(raw[stateConfirms:])), raw: raw}
	if n.Uint32(raw[stateKind:]) != 0 || n.Uint32(raw[stateInvalid:]) != 0 || s.Restart == 0 || s.Confirmed == 0 || n.Uint32(raw[stateXmin:]) != 0 {
		return State{}, fmt.Errorf("slot %s is not ready to be copied: it is being made, or has lost what it needs", name)
	}
	return s, nil
}

// Fetch reads the state of logical slots from the primary to which conn is a session, by what a user for pg_rewind may
// execute. Slots that are not there, or cannot be copied, are left out; the error joins why.
func Fetch(ctx context.Context, conn *pgconn.PgConn, names []string) ([]State, error) {
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, session.QuoteLiteral(n))
	}
	rows, err := session.Query(ctx, conn, `SELECT slot_name, encode(pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex')
 FROM pg_catalog.pg_replication_slots s WHERE NOT coalesce((to_jsonb(s) ->> 'failover')::bool, false) AND slot_type = 'logical' AND NOT temporary AND NOT pg_catalog.pg_is_in_recovery()
 AND slot_name IN (`+strings.Join(quoted, ", ")+")")
	if err != nil {
		return nil, fmt.Errorf("read the state of slots: %w", err)
	}
	var out []State
	var errs []error
	for _, r := range rows {
		raw, err := hex.DecodeString(r[1])
		if err == nil {
			var s State
			if s, err = readState(r[0], raw); err == nil {
				out = append(out, s)
			}
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Install puts the state of a slot into the data directory of a server that does not run. It never replaces a slot. own
// gives what is made to the server's user.
func Install(dataDir string, s State, own func(path string) error) error {
	dir := filepath.Join(dataDir, "pg_replslot", s.Name)
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("slot %s: %s is there already (%w)", s.Name, dir, errors.Join(err, fs.ErrExist))
	}
	// A server removes what ends in .tmp when it starts, so that a slot is there as a whole or not at all.
	temp := dir + ".tmp"
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("slot %s: %w", s.Name, err)
	}
	err := os.Mkdir(temp, 0o700)
	if err == nil {
		err = own(temp)
	}
	if err == nil {
		_, err = durable.Replace(filepath.Join(temp, "state"), s.raw, 0o600, own)
	}
	if err == nil {
		err = os.Rename(temp, dir)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("slot %s: %w", s.Name, err), os.RemoveAll(temp))
	}
	return nil
}

// HasWAL tells whether the data directory still holds the WAL that a slot decodes from.
func HasWAL(dataDir string, segment uint64, at cluster.LSN) (bool, error) {
	if segment == 0 {
		return false, errors.New("the size of WAL files is not known")
	}
	perID := uint64(1<<32) / segment
	number := uint64(at) / segment
	found, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", fmt.Sprintf("????????%08X%08X", number/perID, number%perID)))
	return len(found) > 0, err
}
