package etcd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// How far a member has come, as its marker file tells.
const (
	// phaseEmpty: no data, nothing decided.
	phaseEmpty = "empty"
	// phaseReady: no data yet, but every other member was seen to have none either, so the cluster may be formed.
	phaseReady = "ready"
	// phaseStarted: etcd was started here. Without data this means that they were lost.
	phaseStarted = "started"
)

const markerName = "haven-etcd.json"

// marker is kept beside etcd's data: so that forming goes on after a crash in the middle, and so that data of one
// cluster are not used for another.
type marker struct {
	Token string `json:"token"`
	Phase string `json:"phase"`
}

func readMarker(dir string) (marker, error) {
	data, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return marker{Phase: phaseEmpty}, nil
	}
	if err != nil {
		return marker{}, err
	}
	var m marker
	if json.Unmarshal(data, &m) != nil {
		// Torn by a crash while it was first written: nothing was decided then.
		return marker{Phase: phaseEmpty}, nil
	}
	return m, nil
}

// write replaces the marker durably: a member must not forget what it has told others.
func (m marker) write(dir string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, markerName)
	if err := writeSynced(path+".new", data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// hasData tells whether etcd has a write-ahead log in dir. etcd creates it by renaming, so it is whole or absent. With an error nothing
// is known.
func hasData(dir string) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "member", "wal"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("embedded etcd: whether there are data is not known: %w", err)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), ".wal") }), nil
}

// clearRemains removes what etcd left of a start that did not get as far as its log; a log is never removed.
func clearRemains(dir string) error {
	if data, err := hasData(dir); err != nil || data {
		return cmp.Or(err, errors.New("embedded etcd: a start that failed has left a log"))
	}
	if err := os.RemoveAll(filepath.Join(dir, "member")); err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	return nil
}
