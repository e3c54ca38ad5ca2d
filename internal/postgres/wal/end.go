// Package wal reads what the WAL of a stopped server tells: where it ends, by which timelines it went, and whether it
// went another way than that of another server. It reads pg_wal alone and changes nothing.
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/havenha/haven/internal/cluster"
)

// End is where the WAL in dir ends, and on which timeline: every record from the checkpoint on, which is of timeline
// tl, is checked until one is not whole; the line of timelines is followed to its newest descendant. segSize is the
// size of a segment in bytes.
func End(dir string, tl cluster.Timeline, checkpoint cluster.LSN, segSize uint32) (cluster.Timeline, cluster.LSN, error) {
	chain, err := timelineChain(dir, tl)
	if err != nil {
		return 0, 0, err
	}
	w := &walReader{dir: dir, segSize: uint64(segSize), chain: chain}
	end, err := w.end(uint64(checkpoint))
	if err != nil {
		return 0, 0, fmt.Errorf("from the checkpoint at %s: %w", checkpoint, err)
	}
	return w.timelineAt(uint64(end) - 1), end, nil
}

// reign is a timeline and where it begins.
type reign struct {
	tl    cluster.Timeline
	begin cluster.LSN
}

// timelineChain is the line of timelines, oldest first, that leads to the newest descendant of tl of which there is WAL.
func timelineChain(dir string, tl cluster.Timeline) ([]reign, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	best, bestHistory := tl, []cluster.HistoryLine(nil)
	if tl > 1 {
		if bestHistory, err = ReadHistory(dir, tl); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		if len(f.Name()) != 24 {
			continue
		}
		n, err := strconv.ParseUint(f.Name()[:8], 16, 32)
		if err != nil || cluster.Timeline(n) <= best {
			continue
		}
		history, err := ReadHistory(dir, cluster.Timeline(n))
		if err != nil {
			continue // WAL of a timeline without history cannot be ours to follow
		}
		for _, h := range history {
			if h.Timeline == tl {
				best, bestHistory = cluster.Timeline(n), history
			}
		}
	}
	chain := []reign{}
	begin := cluster.LSN(0)
	for _, h := range bestHistory {
		chain = append(chain, reign{h.Timeline, begin})
		begin = h.LSN
	}
	return append(chain, reign{best, begin}), nil
}

const (
	walPage        = 8192
	shortHeader    = 24 // XLogPageHeaderData, aligned
	longHeader     = 40 // XLogLongPageHeaderData, on the first page of a segment
	recordHeader   = 24 // XLogRecord
	flagOverwrite  = 0x08
	rmgrXLOG       = 0
	infoSwitch     = 0x40
	maxRecordBytes = 1 << 30
)

// walReader reads WAL files as PostgreSQL's xlogreader does (xlogrecord.h, xlog_internal.h).
type walReader struct {
	dir     string
	segSize uint64
	chain   []reign
	segNo   uint64
	seg     []byte
}

var errNoRecord = errors.New("there is no whole record")

func (w *walReader) timelineAt(pos uint64) cluster.Timeline {
	tl := w.chain[0].tl
	for _, r := range w.chain {
		if uint64(r.begin) <= pos {
			tl = r.tl
		}
	}
	return tl
}

// end walks from the record at start to the end of the last one.
func (w *walReader) end(start uint64) (cluster.LSN, error) {
	if w.segSize == 0 || w.segSize%walPage != 0 {
		return 0, fmt.Errorf("segment size %d makes no sense", w.segSize)
	}
	pos, err := w.record(start, 0, false)
	if err != nil {
		return 0, err
	}
	prev := start
	for {
		at := w.recordStart(pos)
		next, err := w.record(at, prev, true)
		if errors.Is(err, errNoRecord) {
			// The rest of a record that a crash cut off is skipped if the server itself marked it as overwritten.
			if at, next = w.afterOverwritten(pos); at == 0 {
				return cluster.LSN(pos), nil
			}
		} else if err != nil {
			return 0, err
		}
		prev, pos = at, next
	}
}

// recordStart is where the record after pos begins: behind the page's header if pos is the start of a page.
func (w *walReader) recordStart(pos uint64) uint64 {
	switch {
	case pos%w.segSize == 0:
		return pos + longHeader
	case pos%walPage == 0:
		return pos + shortHeader
	}
	return pos
}

// record checks the record at pos and returns its aligned end.
func (w *walReader) record(pos, prev uint64, chained bool) (uint64, error) {
	head, err := w.bytes(pos, recordHeader)
	if err != nil {
		return 0, err
	}
	length := uint64(binary.LittleEndian.Uint32(head))
	if length < recordHeader || length > maxRecordBytes || (chained && binary.LittleEndian.Uint64(head[8:]) != prev) {
		return 0, errNoRecord
	}
	body, err := w.bytes(pos, length)
	if err != nil {
		return 0, err
	}
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	crc.Write(body[recordHeader:])
	crc.Write(body[:20])
	if crc.Sum32() != binary.LittleEndian.Uint32(body[20:]) {
		return 0, errNoRecord
	}
	end := (w.after(pos, length) + 7) &^ 7
	if body[17] == rmgrXLOG && body[16]&0xF0 == infoSwitch && end%w.segSize != 0 {
		end += w.segSize - end%w.segSize
	}
	return end, nil
}

// bytes collects n bytes of record data from pos on, leaving page headers out.
func (w *walReader) bytes(pos, n uint64) ([]byte, error) {
	var out []byte
	for n > 0 {
		page, err := w.page(pos - pos%walPage)
		if err != nil {
			return nil, err
		}
		if pos%walPage == 0 {
			pos = w.recordStart(pos)
		}
		chunk := min(n, walPage-pos%walPage)
		out = append(out, page[pos%walPage:pos%walPage+chunk]...)
		pos, n = pos+chunk, n-chunk
	}
	return out, nil
}

// after is the position n bytes of record data behind pos.
func (w *walReader) after(pos, n uint64) uint64 {
	for {
		room := walPage - pos%walPage
		if n <= room {
			return pos + n
		}
		pos, n = w.recordStart(pos+room), n-room
	}
}

// page gives the WAL page at pos; one that is not there, or is left over from an earlier use of the file, ends the WAL.
func (w *walReader) page(pos uint64) ([]byte, error) {
	if no := pos / w.segSize; w.seg == nil || no != w.segNo {
		if err := w.load(no); err != nil {
			return nil, err
		}
	}
	off := pos % w.segSize
	if off+walPage > uint64(len(w.seg)) {
		return nil, errNoRecord
	}
	page := w.seg[off : off+walPage]
	if binary.LittleEndian.Uint64(page[8:]) != pos {
		return nil, errNoRecord
	}
	return page, nil
}

func (w *walReader) load(no uint64) error {
	// The segment in which a timeline begins has the older one's records before that point.
	tl := w.timelineAt((no+1)*w.segSize - 1)
	perID := uint64(1<<32) / w.segSize
	name := fmt.Sprintf("%08X%08X%08X", uint32(tl), no/perID, no%perID)
	raw, err := os.ReadFile(filepath.Join(w.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return errNoRecord
	}
	if err != nil {
		return err
	}
	w.segNo, w.seg = no, raw
	return nil
}

// afterOverwritten looks for the page on which a server went on after a crash had cut off the record at pos
// (XLP_FIRST_IS_OVERWRITE_CONTRECORD); it gives that record's start and end, or zeros.
func (w *walReader) afterOverwritten(pos uint64) (at, next uint64) {
	for p := pos - pos%walPage + walPage; p < pos+2*w.segSize; p += walPage {
		page, err := w.page(p)
		if err != nil {
			return 0, 0
		}
		if binary.LittleEndian.Uint16(page[2:])&flagOverwrite != 0 {
			at = w.recordStart(p)
			if next, err = w.record(at, 0, false); err != nil {
				return 0, 0
			}
			return at, next
		}
	}
	return 0, 0
}
