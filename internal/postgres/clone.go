package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Clone copies the upstream's data directory into an absent, empty or unfinished one, with all WAL that the copy needs
// and its manifest (PostgreSQL manual, "Streaming Replication Protocol", BASE_BACKUP). progress, which may be nil, is
// told bytes received and bytes estimated. A directory that holds anything else is ErrNotEmpty and not touched. When
// BaseBackupOptions are given, pg_basebackup makes the copy. The caller configures the copy as a standby.
func (i *Instance) Clone(ctx context.Context, up Upstream, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	err := i.populate("clone", func(dir string, m *marker) error {
		if len(i.opt.BaseBackupOptions) > 0 {
			return i.runBaseBackup(ctx, up, dir)
		}
		return i.streamBaseBackup(ctx, up, dir, m, progress)
	})
	if err != nil {
		return fmt.Errorf("copy the database from %s: %w", up.Address(), err)
	}
	return nil
}

func (i *Instance) runBaseBackup(ctx context.Context, up Upstream, dir string) error {
	if err := i.writePgPass(&up); err != nil {
		return err
	}
	args := []string{"--pgdata=" + dir, "-X", "stream", "--no-sync", "--dbname=" + i.upstreamConninfo(up, i.opt.Replication, "")}
	return i.run(i.command(ctx, i.bin("pg_basebackup"), append(args, i.opt.BaseBackupOptions...)...))
}

// streamBaseBackup speaks the protocol. Files are written by this process and given to RunAs.
func (i *Instance) streamBaseBackup(ctx context.Context, up Upstream, dir string, m *marker, progress func(done, total int64)) error {
	conn, err := i.connectUpstream(ctx, up)
	if err != nil {
		return err
	}
	version := serverVersion(conn)
	if version/10000 != i.version/10000 {
		closeConn(conn)
		return fmt.Errorf("the server there is PostgreSQL %d, but the programs here are of %d: a physical copy needs the same major version", version/10000, i.version/10000)
	}
	// The slot lives as long as this session and keeps the WAL that the copy will need, however long it takes.
	slot := fmt.Sprintf("haven_clone_%d_%d", conn.PID(), os.Getpid())
	if _, err := queryOn(ctx, conn, "CREATE_REPLICATION_SLOT "+quoteIdent(slot)+" TEMPORARY PHYSICAL RESERVE_WAL"); err != nil {
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != codeLimitExceeded {
			closeConn(conn)
			return fmt.Errorf("reserve the WAL that the copy needs: %w", err)
		}
		i.log.Warn("all replication slots of the upstream are in use; the copy fails if its WAL is removed meanwhile", "upstream", up.Address())
	}
	hc, err := conn.Hijack()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = hc.Conn.Close() })
	defer hc.Conn.Close()
	defer stop()
	b := &backupStream{front: hc.Frontend, conn: hc.Conn, version: version, inst: i, dir: dir, marker: m, progress: progress}
	if err := b.run(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// codeLimitExceeded is the server's answer when max_replication_slots are in use.
const codeLimitExceeded = "53400"

// serverVersion is the upstream's version as PG_VERSION_NUM counts it, from what it says at the start of a session.
func serverVersion(conn *pgconn.PgConn) int {
	m := versionPattern.FindStringSubmatch("(PostgreSQL) " + conn.ParameterStatus("server_version"))
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major*10000 + minor
}

// tablespace is one row of the second result of BASE_BACKUP; the data directory itself has no oid.
type tablespace struct{ oid, location string }

type backupStream struct {
	front    *pgproto3.Frontend
	conn     net.Conn
	version  int
	inst     *Instance
	dir      string
	marker   *marker
	progress func(done, total int64)

	spaces      []tablespace
	done, total int64
}

func (b *backupStream) run() error {
	sql := "BASE_BACKUP (LABEL 'haven', PROGRESS, CHECKPOINT 'fast', WAL, WAIT false, MANIFEST 'yes')"
	if b.version < 150000 {
		sql = "BASE_BACKUP LABEL 'haven' PROGRESS FAST WAL NOWAIT MANIFEST 'yes'"
	}
	b.front.SendQuery(&pgproto3.Query{String: sql})
	if err := b.front.Flush(); err != nil {
		return err
	}
	if err := b.readHeader(); err != nil {
		return err
	}
	if b.version >= 150000 {
		return b.readSingleStream()
	}
	return b.readStreamPerTablespace()
}

// receive returns the next message of interest; errors of the server are errors.
func (b *backupStream) receive() (pgproto3.BackendMessage, error) {
	for {
		msg, err := b.front.Receive()
		if err != nil {
			return nil, fmt.Errorf("the connection broke: %w", err)
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
			continue
		}
		return msg, nil
	}
}

// readHeader reads the two results before the data: where the backup starts, and the tablespaces with their sizes.
func (b *backupStream) readHeader() error {
	for result := 0; result < 2; {
		msg, err := b.receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			if result == 1 && len(m.Values) >= 3 {
				b.spaces = append(b.spaces, tablespace{string(m.Values[0]), string(m.Values[1])})
				kb, _ := strconv.ParseInt(string(m.Values[2]), 10, 64) // an estimate; absent is fine
				b.total += kb * 1024
			}
		case *pgproto3.CommandComplete:
			result++
		}
	}
	return nil
}

// readSingleStream reads the format of PostgreSQL 15 and later: one COPY, whose messages begin with n (new archive),
// m (manifest), d (data) or p (progress).
func (b *backupStream) readSingleStream() error {
	var sink *archiveSink
	defer func() { sink.abort() }()
	for {
		msg, err := b.receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			if len(m.Data) == 0 {
				return errors.New("the server sent an empty message")
			}
			switch kind, data := m.Data[0], m.Data[1:]; kind {
			case 'n':
				if err := sink.finish(); err != nil {
					return err
				}
				if sink, err = b.openArchive(data); err != nil {
					return err
				}
			case 'm':
				if err := sink.finish(); err != nil {
					return err
				}
				if sink, err = b.openManifest(); err != nil {
					return err
				}
			case 'd':
				if err := b.write(sink, data); err != nil {
					return err
				}
			case 'p':
				if len(data) >= 8 {
					b.done = max(b.done, int64(binary.BigEndian.Uint64(data)))
				}
			}
		case *pgproto3.CopyDone:
			err := sink.finish()
			sink = nil
			if err != nil {
				return err
			}
		case *pgproto3.ReadyForQuery:
			return b.complete()
		}
	}
}

// readStreamPerTablespace reads the format of PostgreSQL 13 and 14: one COPY for each tablespace in the order of the
// header, then one for the manifest.
func (b *backupStream) readStreamPerTablespace() error {
	var sink *archiveSink
	defer func() { sink.abort() }()
	for n := 0; ; {
		msg, err := b.receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.CopyOutResponse:
			if n < len(b.spaces) {
				sink, err = b.openSpace(b.spaces[n])
			} else {
				sink, err = b.openManifest()
			}
			n++
		case *pgproto3.CopyData:
			err = b.write(sink, m.Data)
		case *pgproto3.CopyDone:
			err = sink.finish()
			sink = nil
		case *pgproto3.ReadyForQuery:
			return b.complete()
		}
		if err != nil {
			return err
		}
	}
}

func (b *backupStream) write(sink *archiveSink, data []byte) error {
	if sink == nil {
		return errors.New("the server sent data before saying of what")
	}
	b.done += int64(len(data))
	b.progress(min(b.done, max(b.total, b.done)), max(b.total, b.done))
	_, err := sink.Write(data)
	return err
}

// openArchive reads a new archive's name and tablespace path, each ended by a zero byte.
func (b *backupStream) openArchive(data []byte) (*archiveSink, error) {
	parts := bytes.Split(data, []byte{0})
	if len(parts) < 2 {
		return nil, errors.New("the server named an archive in a way that cannot be understood")
	}
	name, location := string(parts[0]), string(parts[1])
	if location == "" {
		return b.openSpace(tablespace{})
	}
	return b.openSpace(tablespace{oid: name, location: location})
}

func (b *backupStream) openSpace(s tablespace) (*archiveSink, error) {
	if s.location == "" {
		return newTarSink(b.inst, b.dir)
	}
	if !filepath.IsAbs(s.location) {
		// PostgreSQL 15+ with allow_in_place_tablespaces: a directory inside pg_tblspc, relative to the data directory.
		return b.openInPlace(s.location)
	}
	if err := b.claimTablespace(s.location); err != nil {
		return nil, err
	}
	return newTarSink(b.inst, s.location)
}

func (b *backupStream) openInPlace(location string) (*archiveSink, error) {
	if !filepath.IsLocal(location) {
		return nil, fmt.Errorf("the server names the tablespace directory %q, which is outside of the data directory", location)
	}
	dir := filepath.Join(b.dir, location)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := errors.Join(os.MkdirAll(d, 0o700), b.inst.chown(d)); err != nil {
			return nil, err
		}
	}
	return newTarSink(b.inst, dir)
}

// claimTablespace takes an absent or empty directory outside, and says so in the marker before anything is put there.
func (b *backupStream) claimTablespace(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("tablespace directory %s: %w", dir, ErrNotEmpty)
	}
	if err := b.inst.chown(dir); err != nil {
		return err
	}
	b.marker.Tablespaces = append(b.marker.Tablespaces, dir)
	return b.inst.writeMarker(b.marker)
}

func (b *backupStream) openManifest() (*archiveSink, error) {
	return newFileSink(b.inst, filepath.Join(b.dir, "backup_manifest"))
}

// complete checks that the copy is whole: the server sends the control file last of all files but WAL.
func (b *backupStream) complete() error {
	for _, name := range []string{"backup_label", "backup_manifest", "PG_VERSION"} {
		if !exists(filepath.Join(b.dir, name)) {
			return fmt.Errorf("the copy is incomplete: the server did not send %s", name)
		}
	}
	if _, err := readControl(b.dir); err != nil {
		return err
	}
	b.progress(b.done, b.done)
	return nil
}
