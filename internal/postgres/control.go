package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Control is what global/pg_control tells of a data directory.
type Control struct {
	SystemID string
	// State is worded as pg_controldata words it: "in production", "shut down", "shut down in recovery" …
	State string
	// Timeline is that of the latest checkpoint; MinRecoveryTimeline that of the end that recovery must reach (0: none).
	Timeline, MinRecoveryTimeline cluster.Timeline
	Checkpoint, Redo              cluster.LSN
	MinRecoveryEnd                cluster.LSN
	Checksums, WalLogHints        bool
	MaxConnections                int
	MaxWorkerProcesses            int
	MaxWalSenders                 int
	MaxPreparedXacts              int
	MaxLocksPerXact               int
	// SegmentSize is the size of a WAL segment in bytes.
	SegmentSize uint32
	// Version is the major version, from PG_VERSION.
	Version int
}

// The states of a control file that this package acts on.
const (
	StateShutDown           = "shut down"
	StateShutDownInRecovery = "shut down in recovery"
	StateInProduction       = "in production"
	StateArchiveRecovery    = "in archive recovery"
)

// Clean tells whether the server was stopped in an orderly way.
func (c Control) Clean() bool { return c.State == StateShutDown || c.State == StateShutDownInRecovery }

// Primary tells whether the server was a primary when it wrote the control file last.
func (c Control) Primary() bool {
	switch c.State {
	case StateInProduction, "in crash recovery", "shutting down", StateShutDown:
		return true
	}
	return false
}

// stateName is DBState of PostgreSQL's pg_control.h in the words of pg_controldata.
func stateName(n uint32) (string, bool) {
	names := [...]string{"starting up", StateShutDown, StateShutDownInRecovery, "shutting down", "in crash recovery", StateArchiveRecovery, StateInProduction}
	if int(n) >= len(names) {
		return "", false
	}
	return names[n], true
}

// Offsets in ControlFileData (pg_control.h, versions 1300 of PostgreSQL 13 to 16, 1700 and 1800), 64 bits, little endian.
// Version 1800 puts one byte before the nonce, which moves only the checksum.
const (
	offSystemID = 0
	offVersion  = 8
	offState    = 16
	offCheck    = 32
	offRedo     = 40
	offTimeline = 48
	offMinRec   = 136
	offMinRecTL = 144
	offHints    = 176
	offMaxConn  = 180
	offMaxWork  = 184
	offMaxSend  = 188
	offMaxPrep  = 192
	offMaxLock  = 196
	offSegSize  = 228
	offSums     = 252
	offCRC1300  = 288
	offCRC1800  = 292
)

var errTornControl = errors.New("its checksum does not match its contents")

// readControl reads the control file of the data directory dir. A checksum that does not match may mean that the
// server is just writing it, so that is tried again a few times.
func readControl(dir string) (Control, error) {
	path := filepath.Join(dir, "global", "pg_control")
	var c Control
	for try := 0; ; try++ {
		raw, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("read the control file: %w", err)
		}
		c, err = parseControl(raw)
		if errors.Is(err, errTornControl) && try < 5 {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		if err != nil {
			return c, fmt.Errorf("%s is damaged: %w; restore the data directory, or remove it so that a new copy is made", path, err)
		}
		break
	}
	var err error
	c.Version, err = readVersionFile(dir)
	return c, err
}

func readVersionFile(dir string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return 0, fmt.Errorf("read the version of the data directory: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("%s holds %q, not a major version", filepath.Join(dir, "PG_VERSION"), strings.TrimSpace(string(raw)))
	}
	return v, nil
}

func parseControl(b []byte) (Control, error) {
	if len(b) < offCRC1800+4 {
		return Control{}, fmt.Errorf("it has only %d bytes", len(b))
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	crcAt := 0
	switch v := u32(offVersion); v {
	case 1300, 1700: // 17 changed what is counted in a field, not where the fields are
		crcAt = offCRC1300
	case 1800:
		crcAt = offCRC1800
	default:
		return Control{}, fmt.Errorf("its format %d is not known (PostgreSQL 13 to 18 are)", v)
	}
	if crc32.Checksum(b[:crcAt], crc32.MakeTable(crc32.Castagnoli)) != u32(crcAt) {
		return Control{}, errTornControl
	}
	state, ok := stateName(u32(offState))
	if !ok {
		return Control{}, fmt.Errorf("it holds the unknown state %d", u32(offState))
	}
	return Control{
		SystemID:            strconv.FormatUint(u64(offSystemID), 10),
		State:               state,
		Timeline:            cluster.Timeline(u32(offTimeline)),
		MinRecoveryTimeline: cluster.Timeline(u32(offMinRecTL)),
		Checkpoint:          cluster.LSN(u64(offCheck)),
		Redo:                cluster.LSN(u64(offRedo)),
		MinRecoveryEnd:      cluster.LSN(u64(offMinRec)),
		Checksums:           u32(offSums) != 0,
		WalLogHints:         b[offHints] != 0,
		MaxConnections:      int(u32(offMaxConn)),
		MaxWorkerProcesses:  int(u32(offMaxWork)),
		MaxWalSenders:       int(u32(offMaxSend)),
		MaxPreparedXacts:    int(u32(offMaxPrep)),
		MaxLocksPerXact:     int(u32(offMaxLock)),
		SegmentSize:         u32(offSegSize),
	}, nil
}
