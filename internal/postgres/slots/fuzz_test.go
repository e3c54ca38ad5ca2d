package slots

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// FuzzState reads state files of slots, which a standby gets from its primary. Their checksum is made right, since no other
// file gets further.
func FuzzState(f *testing.F) {
	raw := make([]byte, stateLeast+8)
	binary.NativeEndian.PutUint32(raw, stateMagic)
	copy(raw[stateName:], "lasting")
	raw[stateRestart], raw[stateConfirms] = 1, 1
	f.Add(raw)
	f.Add(raw[:stateLeast])
	f.Add(raw[:stateName])
	f.Fuzz(func(t *testing.T, given []byte) {
		raw := bytes.Clone(given)
		if len(raw) >= 8 {
			binary.NativeEndian.PutUint32(raw[4:], crc32.Checksum(raw[8:], crc32.MakeTable(crc32.Castagnoli)))
		}
		s, err := readState("lasting", raw)
		if err == nil && (s.Name != "lasting" || s.Restart == 0 || s.Confirmed == 0) {
			t.Errorf("%+v", s)
		}
	})
}
