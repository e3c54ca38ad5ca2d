package postgres

import (
	"errors"
	"fmt"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/wal"
)

// EndOfWAL is the end of the last whole record in pg_wal of a stopped server.
func (i *Instance) EndOfWAL() (cluster.LSN, error) {
	_, end, err := i.LocalEnd()
	return end, err
}

// LocalEnd is where the WAL of a stopped server ends, and on which timeline: every record from the last checkpoint on is
// checked, until one is not whole. Of a running standby it is an end that was there at some moment of the call. That is all that the server ever acknowledged to a primary, also where replay had not
// come so far and its control file is of an older timeline.
func (i *Instance) LocalEnd() (cluster.Timeline, cluster.LSN, error) {
	c, err := readControl(i.opt.DataDir)
	if err != nil {
		return 0, 0, fmt.Errorf("end of the local WAL: %w", err)
	}
	tl, end, err := wal.End(i.path("pg_wal"), c.Timeline, c.Checkpoint, c.SegmentSize)
	if err != nil {
		return 0, 0, fmt.Errorf("end of the local WAL: %w", err)
	}
	if again, err := readControl(i.opt.DataDir); err != nil || again.Checkpoint != c.Checkpoint {
		return 0, 0, fmt.Errorf("end of the local WAL: the server has recycled WAL meanwhile (%w)", errors.Join(err, errMoved))
	}
	return tl, end, nil
}

var errMoved = errors.New("its last checkpoint moved")

// LocalHistory reads the history of timeline tl from pg_wal; timeline 1 has none. The file's time of change becomes the
// timestamp of its last line.
func (i *Instance) LocalHistory(tl cluster.Timeline) ([]cluster.HistoryLine, error) {
	return wal.ReadHistory(i.path("pg_wal"), tl)
}
