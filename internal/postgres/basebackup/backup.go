// Package basebackup receives a copy of a server's data directory over the replication protocol (PostgreSQL manual,
// "Streaming Replication Protocol", BASE_BACKUP), from PostgreSQL 13 to 18.
//
// It guarantees that nothing is written outside the target and the tablespaces that the caller allowed, and that a copy
// without its label or manifest is an error. It leaves to the caller to connect, to keep the WAL that the copy needs, to
// clean up after an error, and to make the copy durable.
package basebackup

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

// Target is where a backup goes, and how.
type Target struct {
	Dir      string                        // an existing, empty directory
	Own      *Owner                        // whom everything is given to
	Claim    func(tablespace string) error // makes sure of a directory for a tablespace outside
	Progress func(done, total int64)       // bytes received and estimated
}

// Receive takes a base backup with its WAL and its manifest from a server of that version (as PG_VERSION_NUM counts it)
// on a replication connection, which it closes. An error leaves what came so far where it is.
func Receive(ctx context.Context, conn *pgconn.PgConn, version int, t Target) error {
	hc, err := conn.Hijack()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = hc.Conn.Close() })
	defer hc.Conn.Close()
	defer stop()
	b := &backupStream{front: hc.Frontend, conn: hc.Conn, version: version, Target: t}
	if err := b.run(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// tablespace is one row of the second result of BASE_BACKUP; the data directory itself has no oid.
type tablespace struct{ oid, location string }

type backupStream struct {
	front   *pgproto3.Frontend
	conn    net.Conn
	version int
	Target

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
	b.Progress(min(b.done, max(b.total, b.done)), max(b.total, b.done))
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
		return newTarSink(b.Own, b.Dir)
	}
	if !filepath.IsAbs(s.location) {
		// PostgreSQL 15+ with allow_in_place_tablespaces: a directory inside pg_tblspc, relative to the data directory.
		return b.openInPlace(s.location)
	}
	if err := b.Claim(s.location); err != nil {
		return nil, err
	}
	return newTarSink(b.Own, s.location)
}

func (b *backupStream) openInPlace(location string) (*archiveSink, error) {
	if !filepath.IsLocal(location) {
		return nil, fmt.Errorf("the server names the tablespace directory %q, which is outside of the data directory", location)
	}
	dir := filepath.Join(b.Dir, location)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := errors.Join(os.MkdirAll(d, 0o700), b.Own.take(d)); err != nil {
			return nil, err
		}
	}
	return newTarSink(b.Own, dir)
}

func (b *backupStream) openManifest() (*archiveSink, error) {
	return newFileSink(b.Own, filepath.Join(b.Dir, "backup_manifest"))
}

// complete checks that what a copy must have has come.
func (b *backupStream) complete() error {
	for _, name := range []string{"backup_label", "backup_manifest", "PG_VERSION"} {
		if _, err := os.Lstat(filepath.Join(b.Dir, name)); err != nil {
			return fmt.Errorf("the copy is incomplete: the server did not send %s", name)
		}
	}
	b.Progress(b.done, b.done)
	return nil
}
