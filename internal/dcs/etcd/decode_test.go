package etcd

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// imageOf reads lines "name value"; a name may come once. Empty lines and those that begin with # are left out.
func imageOf(text string) image {
	im := image{header: &pb.ResponseHeader{ClusterId: 1, RaftTerm: 2, Revision: 3}, keys: keys{}}
	for i, line := range strings.Split(text, "\n") {
		name, value, _ := strings.Cut(line, " ")
		if name != "" && !strings.HasPrefix(name, "#") {
			im.keys[name] = &mvccpb.KeyValue{Value: []byte(value), ModRevision: int64(i + 1), CreateRevision: int64(i + 1)}
		}
	}
	return im
}

// Each testdata/decode/*.keys holds keys as Patroni, an older release or a mishap leaves them; the golden file beside
// it what is understood of them.
func TestDecode(t *testing.T) {
	files, err := filepath.Glob("testdata/decode/*.keys")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(readable(imageOf(string(text)).snapshot()), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".keys") + ".golden"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bytes.TrimSpace(want), got) {
				t.Errorf("%s is understood differently; -update to accept:\n%s", file, got)
			}
		})
	}
}

// readable names the members, whose names are no part of their JSON.
func readable(s cluster.Snapshot) any {
	members := map[string]cluster.Member{}
	for _, m := range s.Members {
		members[m.Name] = m
	}
	s.Members = nil
	return struct {
		Members map[string]cluster.Member
		Rest    cluster.Snapshot
	}{members, s}
}

// A member that encode and decode change would be seen to change for ever.
func TestEncodeKeepsTheLayout(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  func() (string, error)
		want string
	}{
		{"sync", func() (string, error) {
			return encodeSync(cluster.Sync{Leader: "pg-a", Standbys: []string{"pg-c", "pg-b"}, Quorum: 1})
		}, `{"leader":"pg-a","quorum":1,"sync_standby":"pg-b,pg-c"}`},
		{"sync without standbys", func() (string, error) { return encodeSync(cluster.Sync{Leader: "pg-a"}) },
			`{"leader":"pg-a","quorum":0,"sync_standby":null}`},
		{"history", func() (string, error) {
			return encodeHistory([]cluster.HistoryLine{
				{Timeline: 1, LSN: 25165984, Reason: "no recovery target specified"},
				{Timeline: 2, LSN: 25165985, Reason: "a <b>", Timestamp: "2031-02-03T04:05:06.123456+00:00", NewLeader: "pg-b"},
			})
		}, `[[1,25165984,"no recovery target specified"],[2,25165985,"a <b>","2031-02-03T04:05:06.123456+00:00","pg-b"]]`},
		{"no history", func() (string, error) { return encodeHistory([]cluster.HistoryLine{}) }, `[]`},
		{"status", func() (string, error) {
			return encode(&cluster.Status{Optime: 83886416, Slots: map[string]cluster.LSN{"pg_a": 1}})
		}, `{"optime":83886416,"slots":{"pg_a":1}}`},
		{"member", func() (string, error) {
			return encode(cluster.Member{ConnURL: "postgres://h:5432/postgres", APIURL: "http://h:8008/patroni", State: "running", Role: "replica", Version: "4.1.4", Timeline: 3})
		}, `{"conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni","state":"running","role":"replica","version":"4.1.4","timeline":3}`},
	} {
		got, err := tt.got()
		if err != nil || got != tt.want {
			t.Errorf("%s: got %s (%v), want %s", tt.name, got, err, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"conn_url":"postgres://h/p","tags":{"nofailover":true}}`, `postgres://h:1/p?application_name=http%3A%2F%2Fh`,
		`5`, `[[1,2,"x"]]`, `a:b`, `{"optime":"5","slots":"{\"a\":1}"}`, `{"scheduled_at":"x","member":"b"}`, `null`, "\xff{",
		`{"leader":"a","sync_standby":"b, c","quorum":1}`, `{"number":1,"since":"x"}`, ``, ` {"a":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := bytes.Clone(data)
		im := image{header: &pb.ResponseHeader{}, keys: keys{}}
		for _, name := range []string{keyInitialize, keyConfig, keyLeader, "members/a", keyStatus, keyFailover, keySync, keyHistory, keyFailsafe, keyTerm, eventKey(1), "members/a/b", "haven/events/x"} {
			im.keys[name] = &mvccpb.KeyValue{Value: data, ModRevision: 1}
		}
		s := im.snapshot()
		if !bytes.Equal(data, kept) {
			t.Error("the value was changed")
		}
		if len(s.Members) != 1 || s.Config == nil || s.Status == nil || s.Failover == nil || s.Sync == nil || s.History == nil || s.Term == nil {
			t.Errorf("a key that exists was read as absent: %+v", s)
		}
		if s.Config.Raw != nil {
			if _, err := encodeConfig(s.Config.Raw); err != nil {
				t.Errorf("config that was read cannot be written: %v", err)
			}
		}
		if s.Failover.ScheduledAt == nil && !s.Failover.Empty() && bytes.Contains(data, []byte(`"scheduled_at":"`)) && bytes.HasPrefix(data, []byte("{")) && !bytes.Contains(data, []byte(`"scheduled_at":""`)) && json.Valid(data) && bytes.Count(data, []byte("scheduled_at")) == 1 && bytes.Count(data, []byte("{")) == 1 {
			t.Errorf("a request lost its time: %s", data)
		}
	})
}
