package proxy

import (
	"encoding/json"
	"testing"
)

// FuzzListing reads what a REST API answers to GET /cluster, and makes a picture of it.
func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"scope":"demo","members":[{"name":"db1","role":"leader","state":"running","api_url":"http://10.0.0.1:8008/patroni","host":"10.0.0.1","port":5432,"timeline":1}]}`))
	f.Add([]byte(`{"members":[{"name":"db2","role":"replica","state":"streaming","host":"::1","port":"5432","lag":"unknown","tags":{"noloadbalance":true}},{}]}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var l listing
		if json.Unmarshal(answer, &l) != nil {
			return
		}
		p := sketch(*believed([]*listing{nil, &l}))
		if len(p.servers) != len(l.Members) {
			t.Errorf("%d servers of %d members", len(p.servers), len(l.Members))
		}
		if p.leader != nil && p.leader.holder == "" {
			t.Error("a leader without a name")
		}
	})
}
