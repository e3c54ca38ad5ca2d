package ha

import "testing"

// TestHealthTellsRoomOnlyWhereThereIsSome: what others flee to answers, and has ample room for data and for WAL; of what is
// not known nothing is told.
func TestHealthTellsRoomOnlyWhereThereIsSome(t *testing.T) {
	const mb = 1 << 20
	room := func(data, wal uint64) Room { return Room{Known: true, Data: data, WAL: wal, Segment: 16 * mb} }
	hangs := Knocks{Failed: 3, Failing: 1, Last: Knocks{}.Last.Add(20 * usual().Policy.HungAfter)}
	for name, test := range map[string]struct {
		probed bool
		room   Room
		knocks Knocks
		want   Health
	}{
		"ample":                  {true, room(4*mb, 64*mb), Knocks{}, HealthOK},
		"little for data":        {true, room(4*mb-1, 64*mb), Knocks{}, ""},
		"little for WAL":         {true, room(4*mb, 64*mb-1), Knocks{}, ""},
		"none for data":          {true, room(mb-1, 64*mb), Knocks{}, HealthFull},
		"none for WAL":           {true, room(4*mb, 16*mb-1), Knocks{}, HealthFull},
		"unknown":                {true, Room{Data: 4 * mb, WAL: 64 * mb, Segment: 16 * mb}, Knocks{}, ""},
		"ample, does not answer": {false, room(4*mb, 64*mb), Knocks{}, ""},
		"ample, hangs":           {true, room(4*mb, 64*mb), hangs, HealthHung},
	} {
		s := Server{Process: ProcessUp, Probed: test.probed, Room: test.room, Knocks: test.knocks}
		if got := s.Health(usual().Policy); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
