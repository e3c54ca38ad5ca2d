package frame

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// play sends (">") and receives ("<") messages by their types; Z is followed by its status. It fails at the step that the
// exchange refuses.
func play(t *testing.T, x *Exchange[int], script string) error {
	t.Helper()
	for step := range strings.FieldsSeq(script) {
		kind := step[1]
		if step[0] == '<' {
			var status byte
			if kind == 'Z' {
				status = step[2]
			}
			if _, err := x.Receive(kind, status); err != nil {
				return err
			}
			continue
		}
		switch kind {
		case 'Q', 'F':
			x.Query(kind)
		case 'S':
			x.Sync()
		case 'c', 'f':
			x.CopyEnd()
		case 'd', 'H':
		default:
			x.Extended(Entry[int]{Kind: kind})
		}
	}
	return nil
}

func TestExchanges(t *testing.T) {
	for _, c := range []struct {
		name, script string
		edge         bool
	}{
		{"simple", ">Q <T <D <D <C <ZI", true},
		{"simple, owed", ">Q <T <D <D <C", false},
		{"several statements", ">Q <C <T <C <I <ZI", true},
		{"in a transaction", ">Q <C <ZT", false},
		{"failed transaction", ">Q <C <ZT >Q <E <ZE >Q <C <ZI", true},
		{"simple error", ">Q <T <D <E <ZI", true},
		{"extended", ">P >B >D >E >S <1 <2 <T <D <C <ZI", true},
		{"no sync yet", ">P >B >E >H <1 <2 <C", false},
		{"describe a statement", ">P >D >S <1 <t <T <ZI", true},
		{"describe, no rows", ">P >D >S <1 <t <n <ZI", true},
		{"suspended", ">B >E >H <2 <D <s >E >S <D <C <ZI", true},
		{"error skips to sync", ">P >B >E >S <E <ZI", true},
		{"error before sync is sent", ">P >B <E >E >S <ZI", true},
		{"error, and no sync", ">P <E >B >E", false},
		{"a query that is skipped does not end the batch", ">P >Q <E", false},
		{"a query that is skipped, and a sync", ">P >Q <E >S <ZI", true},
		{"a query is skipped too", ">P <E >Q >S <ZI", true},
		{"error of the commit", ">P >B >E >S <1 <2 <C <E <ZI", true},
		{"pipelined batches, the first fails", ">P >S >P >B >E >S <E <ZI <1 <2 <C <ZI", true},
		{"copy in", ">Q <G >d >d >c <C <ZI", true},
		{"copy in, not ended", ">Q <G >d", false},
		{"copy in, blind", ">Q >d >c <G <C <ZI", true},
		{"copy in fails", ">Q <G >d <E <ZI >d >c", true},
		{"copy in fails, blind", ">Q >d >c <G <E <ZI", true},
		{"copy in, refused", ">Q >d >c <E <ZI", true},
		{"copy in, extended, as libpq", ">P >B >D >E >S <1 <2 <n <G >d >c >S <C <ZI", true},
		{"copy in, extended, sync ignored", ">P >B >D >E >S <1 <2 <n <G >d >c <C", false},
		{"copy in, extended, blind", ">P >B >E >S >d >c >S <1 <2 <G <C <ZI", true},
		{"copy in fails behind a sync", ">Q >S <G <E <ZI", true},
		{"copy in fails before a sync", ">Q >S <G <E <ZI <ZI", true},
		{"copy in fails before a sync that comes later", ">Q <G >S <E <ZI >Q <ZI <T <C <ZI", true},
		{"copy in fails before a sync, a query behind", ">Q >S >c >Q <G <E <ZI <ZI <T <C", false},
		{"copy in fails before a sync, a query behind, answered", ">Q >S >c >Q <G <E <ZI <ZI <T <C <ZI", true},
		{"copy in fails behind a sync, a query behind", ">Q >S >c >Q <G <E <ZI <T <C <ZI", true},
		{"copy in, extended, fails behind a sync, as libpq", ">P >B >E >S <1 <2 <G >d >c >S <E <ZI", true},
		{"copy in, extended, fails before a sync", ">P >B >E >S <1 <2 <G >d >c >S <E <ZI <ZI", true},
		{"copy in, extended, fails before a sync, another to come", ">P >B >E >S <1 <2 <G <E <ZI >c >S", false},
		{"copy in, extended, fails before a sync, another came", ">P >B >E >S <1 <2 <G <E <ZI >c >S <ZI", true},
		{"copy in, extended, fails before a sync, a batch behind", ">E >S >c >S >B >E >S <G <E <ZI <ZI <2 <C <ZI", true},
		{"copy in fails before what is no data", ">Q >Q >S <G <E <ZI <C <ZI <ZI", true},
		{"two copies in one query", ">Q <G >d >c <C <G >d >c <C <ZI", true},
		{"copy out", ">Q <H <d <d <c <C <ZI", true},
		{"function call", ">F <V <ZI", true},
		{"notices and notifications any time", "<N >Q <S <A <C <ZI <N", true},
	} {
		x := Exchange[int]{Status: 'I'}
		if err := play(t, &x, c.script); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if x.Edge() != c.edge {
			t.Errorf("%s: edge is %v", c.name, x.Edge())
		}
	}
}

func TestWhatNobodyAskedForIsAnError(t *testing.T) {
	for _, script := range []string{
		"<ZI", "<D", "<C", ">Q <ZI", ">Q <T <ZI", ">F <ZI", ">Q <C <ZI <ZI", ">P <2", ">B <1", ">Q <1", ">S <C", ">Q <ZX", ">P >S <ZI", ">Q <K", ">Q <R", ">E <T", ">Q <V", ">B <G", ">Q <s",
		">Q >S <G <E <ZI <ZI <ZI", ">Q >S >c >Q <G <E <ZI <C <ZI <ZI", ">Q >S >c <G <C <ZI <ZI", ">Q <G >S >c >Q <C <ZI <ZI",
	} {
		x := Exchange[int]{Status: 'I'}
		if err := play(t, &x, script); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestFates(t *testing.T) {
	for _, c := range []struct {
		script string
		want   Fate
	}{
		{"", Nothing},
		{">Q <C <ZI", Nothing},
		{">Q", Unknown},
		{">Q <C", Unknown},
		{">Q <C <ZT", Lost},
		{">Q <C <ZT >Q", Unknown},
		{">Q <C <ZT >P >D >S", Lost},
		{">Q <C <ZT >P >B >E", Unknown}, // COMMIT takes effect when it is executed
		{">P >B >E <1 <2 <C", Unknown},  // it may have been COMMIT, or CALL: they do not wait for the Sync
		{">P >B >E >P >B >E", Unknown},  // BEGIN and COMMIT in one batch
		{">P >B >E <1 <2", Unknown},
		{">P >B >E >S <1 <2 <C <ZI >P", Lost},
		{">P >B >E >S <1 <2 <C", Unknown},
		{">P >B >E >S", Unknown},
		{">P >D >S", Lost},
		{">P >Q <E", Lost}, // all is ignored up to a Sync
	} {
		x := Exchange[int]{Status: 'I'}
		if err := play(t, &x, c.script); err != nil || x.Fate() != c.want {
			t.Errorf("%q: fate %v, want %v (%v)", c.script, x.Fate(), c.want, err)
		}
	}
}

func TestDroppedEntriesAreTold(t *testing.T) {
	var dropped []int
	x := Exchange[int]{Status: 'I', Drop: func(e Entry[int]) { dropped = append(dropped, e.Note) }}
	for i, kind := range []byte{'P', 'B', 'E'} {
		x.Extended(Entry[int]{Kind: kind, Note: i + 1})
	}
	x.Sync()
	x.Extended(Entry[int]{Kind: 'P', Note: 9})
	if _, err := x.Receive('E', 0); err != nil || !slices.Equal(dropped, []int{3, 2, 1}) {
		t.Errorf("dropped %v, %v", dropped, err)
	}
	x.Abandon()
	if !slices.Equal(dropped, []int{3, 2, 1, 9, 0}) || x.Owes() {
		t.Errorf("dropped %v when the rest was abandoned", dropped)
	}
}

func TestAbsurdLengths(t *testing.T) {
	for _, b := range []string{"Q\x00\x00\x00\x03", "Q\xff\xff\xff\xff", "Q\x40\x00\x00\x00", "Q\x00\x00\x00\x00"} {
		if _, size := Next([]byte(b)); size != -1 {
			t.Errorf("%q: size %d", b, size)
		}
	}
	for _, b := range []string{"S\x00\x00\x00\x05", "X\x00\x01\x00\x00", "D\x00\x01\x00\x00", "\x00\x00\x00\x00\x08", "r\x00\x00\x00\x04"} {
		kind, size := Next([]byte(b))
		if FromClient(kind, size) == nil {
			t.Errorf("%q is taken from a client", b)
		}
	}
	for _, b := range []string{"Z\x00\x00\x00\x04", "Z\x00\x00\x00\x06", "C\x00\x01\x00\x00", "K\x00\x00\x00\x0c", "Q\x00\x00\x00\x05"} {
		kind, size := Next([]byte(b))
		if FromServer(kind, size) == nil {
			t.Errorf("%q is taken from a server", b)
		}
	}
}

func TestRename(t *testing.T) {
	old := Append(nil, 'B', "portal\x00", "old\x00", "rest")
	got := AppendRenamed(nil, 'B', len(old), []byte("portal\x00"), len("old"), "a longer name")
	got = append(got, "\x00rest"...)
	if want := Append(nil, 'B', "portal\x00", "a longer name\x00", "rest"); !bytes.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x0dselect 1\x00"))
	f.Add([]byte("Z\x00\x00\x00\x05I"))
	f.Add([]byte("\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			kind, size := Next(b)
			if size == 0 {
				return
			}
			client, server := FromClient(kind, size), FromServer(kind, size)
			if size < Head && (client == nil || server == nil) {
				t.Fatalf("a length of %d passes", size)
			}
			if client != nil && server != nil || size > len(b) {
				return
			}
			b = b[size:]
		}
	})
}

// FuzzExchange feeds an exchange with any order of messages: it must keep its own books, and never be at an edge while
// something is owed.
func FuzzExchange(f *testing.F) {
	f.Add([]byte("QtZIPBES12CZI"))
	f.Add([]byte("PBDES12nGdcSCZI"))
	f.Fuzz(func(t *testing.T, script []byte) {
		x := Exchange[int]{Status: 'I'}
		for i := 0; i+1 < len(script); i += 2 {
			kind := script[i+1]
			if script[i]%2 == 0 {
				if _, err := x.Receive(kind, script[i]>>1); err != nil {
					return
				}
			} else {
				switch kind {
				case 'Q', 'F':
					x.Query(kind)
				case 'S':
					x.Sync()
				case 'c':
					x.CopyEnd()
				case 'P', 'B', 'D', 'E', 'C':
					x.Extended(Entry[int]{Kind: kind})
				}
			}
			commands, ending := 0, 0
			for i := range x.n {
				switch x.at(i).Kind {
				case 'Q', 'F':
					commands, ending = commands+1, ending+1
				case 'E':
					commands++
				case 'S':
					ending++
				}
			}
			if x.commands != commands || x.ending != ending {
				t.Fatalf("%d commands and %d ends are owed, counted as %d and %d", commands, ending, x.commands, x.ending)
			}
			if x.ignored < 0 || x.strays < 0 {
				t.Fatalf("%d ignored, %d strays", x.ignored, x.strays)
			}
			if x.Edge() && (x.Owes() || x.Begun() || x.Copying() || x.Skipping()) {
				t.Fatal("at an edge with something owed")
			}
			if x.n < 0 || x.n > len(x.ring) {
				t.Fatalf("%d entries in a ring of %d", x.n, len(x.ring))
			}
		}
	})
}

// BenchmarkExchange is one prepared execution, framed and entered in both directions.
func BenchmarkExchange(b *testing.B) {
	sent := Append(Append(Append(nil, 'B', "\x00s1\x00\x00\x00\x00\x00\x00\x00"), 'E', "\x00\x00\x00\x00\x00"), 'S')
	got := Append(Append(Append(Append(nil, '2'), 'D', "\x00\x01\x00\x00\x00\x011"), 'C', "SELECT 1\x00"), 'Z', "I")
	x := Exchange[int]{Status: 'I'}
	b.ReportAllocs()
	for b.Loop() {
		for m := sent; len(m) > 0; {
			kind, size := Next(m)
			if FromClient(kind, size) != nil {
				b.Fatal(kind)
			}
			if kind == 'S' {
				x.Sync()
			} else {
				x.Extended(Entry[int]{Kind: kind})
			}
			m = m[size:]
		}
		for m := got; len(m) > 0; {
			kind, size := Next(m)
			var status byte
			if size > Head {
				status = m[Head]
			}
			if FromServer(kind, size) != nil {
				b.Fatal(kind)
			}
			if _, err := x.Receive(kind, status); err != nil {
				b.Fatal(err)
			}
			m = m[size:]
		}
	}
}
