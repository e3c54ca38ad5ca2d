package ha

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/cluster"
)

// anyWords are the words that random views are made of.
func anyWords() []string {
	return strings.Fields(`
store=unknown store=known store=known leader=- leader=a leader=b leader=c term=- term=3:a:promoted term=4:b:claimed:stopped
term=4:b:promoted term=5:c:claimed term=5:c:claimed:voters term=6:b:promoted:stopped:server_crashed
sync=- sync=a:b sync=b:a,c:1 sync=c:- sync=a:b,c:1 sync=a:c init=- init=empty init=7000000000000000001 init=7999999999999999999
config=- config=y optime=9000000 optime=0 history=2 history=0 failover=- failover=b>c failover=a>b failover=>b failover=>c failover=b>c:later failover=b>:stale
member=a:gone member=c:gone member=a: member=b: member=c: member=c:nofailover member=c:patroni member=a:initdb member=c:checkpointing member=b:gone
me=nofailover me=new lease=none lease=free lease=lost lease=10s lease=-1s lease=10s server=primary server=standby server=silent server=mute server=down
server=down,wasprimary server=orphans server=unknown server=down,torn disk=data disk=empty disk=unfinished disk=foreign disk=unknown disk=data disk=data
wal=900 wal=2000 timeline=1 timeline=2 upstream=- upstream=a upstream=c names=- names=a names=ANY_1_(a,c) streams=- streams=a:1000,c:900
survey=none survey=a:1000,c:1000 survey=a:refused,c:silent survey=c:2000 survey=a:1000::primary compare=a:same compare=c:diverged compare=a:diverged
crash=signal_9 restart=any restart=primary restart=- reinit=any reinit=leader reinit=- reinit=- task=- task=- task=clone:a task=promote task=rewind:c task=switchover:c task=kill
crash=signal_9
knocks=3:10s knocks=2:40s knocks=- room=0:100 room=100:1 room=100:100 room=- member=c:ok member=c:full member=a:hung
policy=on policy=quorum policy=off policy=strict policy=pause policy=resume policy=resume policy=count:2 done failed unbegun after=1s after=40s`)
}

// TestDecideKeepsItsPromises plays random steps and checks after each what must never be decided.
func TestDecideKeepsItsPromises(t *testing.T) {
	words := anyWords()
	kinds := map[Kind]int{}
	for seed := range uint64(9000) {
		r := rand.New(rand.NewPCG(seed, 1))
		v, m, last := usual(), Memory{}, Action{}
		if seed%2 == 1 {
			v, m, _ = play(v, m, last, strings.Fields("leader=b term=4:b:promoted server=primary lease=1000s streams=a:1000,c:1000 policy=on sync=b:a,c"))
		}
		var trace []string
		for range 30 {
			var step []string
			for range 1 + r.IntN(4) {
				step = append(step, words[r.IntN(len(words))])
			}
			var d Decision
			before := m
			v, m, d = play(v, m, last, step)
			trace = append(trace, strings.Join(step, " ")+"\n   -> "+tell(d))
			if again, _ := Decide(v, before); !reflect.DeepEqual(again, d) {
				t.Fatalf("seed %d: decided twice, differently:\n%s\nand %s", seed, strings.Join(trace, "\n"), tell(again))
			}
			if why := broken(v, d); why != "" {
				t.Fatalf("seed %d: %s:\n%s", seed, why, strings.Join(trace, "\n"))
			}
			kinds[d.Action.Kind]++
			last = d.Action
		}
	}
	for _, k := range []Kind{Kill, Promote, Open, Release, HandOver, Switch, Acquire, MoveAside, Rewind, Clone, SetSync, Start, RestartServer} {
		if kinds[k] == 0 {
			t.Errorf("the random views never led to %s: they prove nothing about it", k)
		}
	}
}

// broken says which promise a decision breaks.
func broken(v View, d Decision) string {
	k, known := d.Action.Kind, v.Store.Known
	proven := v.Lease.Proven(v.Now)
	switch {
	case k == "" || d.Reason.Code == "" || d.Reason.Text == "":
		return "a decision without action, reason or text"
	case d.Again <= 0:
		return "it never looks again"
	case !known && k != Kill && k != None:
		return "an action while nothing is known of the store"
	case v.Task != nil && k != Kill && k != None:
		return "an action beside another one"
	case slices.Contains([]Kind{Promote, Open, HandOver, Switch, SetSync}, k) && !proven:
		return "an act of leadership without proof of it"
	case k == Release && !v.Lease.Held:
		return "a release of what is not held"
	case k == Start && d.Action.AsPrimary && !proven:
		return "a primary is started without proof of leadership"
	case k == RestartServer && d.Action.AsPrimary && (!proven || v.Server.InRecovery):
		return "a primary is restarted without proof of leadership"
	case k == RestartServer && (v.Server.Process != ProcessUp || v.Store.Leader == nil || !v.Server.InRecovery && v.Store.Leader.Name != v.Me.Name):
		return "a restart of what does not run, or while nobody leads"
	case k == MoveAside && v.Store.Sync.Has(v.Me.Name) && !v.Policy.Strict && d.Reason.Code == ReasonReinit:
		return "data is moved aside though commits may rest on it"
	case k == Clone && v.Store.Sync.Has(v.Me.Name) && d.Action.Member != v.Store.Leader.Name:
		return "who is recorded as having every commit copies from another than the leader"
	case k == Acquire && v.Store.Leader != nil:
		return "the leader key is taken although there is one"
	case slices.Contains([]Kind{MoveAside, Rewind, Clone}, k) && (v.Store.Leader == nil || v.Store.Leader.Name == v.Me.Name || !leaderReady(v)):
		return "data is replaced without a leader that is ready"
	case slices.Contains([]Kind{MoveAside, Clone, Release, HandOver}, k) && v.Server.MayWrite():
		return "the server may be writable"
	case slices.Contains([]Kind{Release, HandOver, Start, MoveAside, Clone}, k) && v.Server.Process == ProcessOrphans:
		return "processes of a dead server are left"
	case !v.Policy.Pause && v.Lease.Held && !proven && v.Server.MayWrite() && k != Kill && (v.Task == nil || v.Task.Kind != Kill):
		return "a server may be writable without proof of leadership, and is not ended"
	case known && v.Store.Leader != nil && v.Store.Leader.Name != v.Me.Name && v.Server.Primary() && !v.Policy.Pause && v.Task == nil && k != Kill && k != Exit && k != Acquire:
		return "a primary beside another leader is not ended"
	}
	return ""
}

// pg is a model of a primary with standbys: what was acknowledged, and who has it.
type pg struct {
	wal, acked cluster.LSN
	flush      map[string]cluster.LSN
	connected  map[string]bool
	names      string
}

// ack acknowledges what the names in force allow.
func (p *pg) ack() {
	n := ParseNames(p.names)
	if len(n.Names) == 0 {
		p.acked = p.wal
		return
	}
	var have []cluster.LSN
	for _, name := range n.Names {
		if p.connected[name] {
			have = append(have, p.flush[name])
		}
	}
	if len(have) < n.Count {
		return
	}
	slices.Sort(have)
	p.acked = max(p.acked, have[len(have)-n.Count])
}

// lost says which promotion that the rules allow would lose an acknowledged commit.
func (p *pg) lost(rec *cluster.Sync) string {
	if !rec.Active() {
		return ""
	}
	behind := 0
	for _, s := range rec.Standbys {
		if p.flush[s] < p.acked {
			behind++
		}
	}
	if behind > rec.Quorum {
		return fmt.Sprintf("%d of the voters %v lack what was acknowledged (%d), quorum %d, flushed %v", behind, rec.Standbys, p.acked, rec.Quorum, p.flush)
	}
	return ""
}

// TestNoAcknowledgedCommitIsLost walks at random through commits, standbys that come and go, and changes of the mode. After
// each event every member that may be promoted by /sync must have every commit that was acknowledged.
func TestNoAcknowledgedCommitIsLost(t *testing.T) {
	steps, acked := 0, 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 2))
		p := &pg{wal: 1000, flush: map[string]cluster.LSN{}, connected: map[string]bool{}}
		v, m := syncView(r), Memory{}
		var trace []string
		rev := int64(60)
		for range 80 {
			trace = append(trace, p.event(r, &v))
			p.ack()
			p.show(&v)
			d, next := Decide(v, m)
			m, v.Outcome = next, nil
			if s := d.Action.Sync; s != nil {
				rev++
				p.take(s, &v, rev)
				p.ack()
				v.Outcome = &Outcome{Kind: SetSync}
				steps++
				trace = append(trace, "   "+tell(d))
			}
			if why := p.lost(v.Store.Sync); why != "" {
				t.Fatalf("seed %d: %s\n%s", seed, why, strings.Join(trace[max(0, len(trace)-30):], "\n"))
			}
		}
		acked += int(p.acked)
	}
	if steps < 10000 || acked == 0 {
		t.Errorf("only %d steps of the set: the walk proves little", steps)
	}
}

func syncView(r *rand.Rand) View {
	v := usual()
	v.Me.Name = "a"
	setMember(&v, "d:")
	setServer(&v, "primary")
	setLease(&v, "1000s")
	v.Policy.Strict = r.IntN(3) == 0
	return v
}

// event lets one thing happen.
func (p *pg) event(r *rand.Rand, v *View) string {
	who := []string{"b", "c", "d"}[r.IntN(3)]
	v.Now = v.Now.Add(duration([]string{"10ms", "500ms", "3s"}[r.IntN(3)]))
	v.Lease.Deadline = v.Now.Add(duration("10s"))
	switch r.IntN(9) {
	case 0, 1, 2:
		p.wal += cluster.LSN(1 + r.IntN(50))
		return fmt.Sprintf("commit up to %d", p.wal)
	case 3, 4, 5:
		if p.connected[who] {
			p.flush[who] += cluster.LSN(r.IntN(int(p.wal-p.flush[who]) + 1))
			if r.IntN(2) == 0 {
				p.flush[who] = p.wal
			}
		}
		return fmt.Sprintf("%s has flushed %d", who, p.flush[who])
	case 6:
		p.connected[who] = !p.connected[who]
		return fmt.Sprintf("%s connected: %v", who, p.connected[who])
	case 7:
		v.Policy.Sync = []SyncMode{SyncOff, SyncPriority, SyncQuorum}[r.IntN(3)]
		return "mode " + string(v.Policy.Sync)
	}
	v.Policy.SyncCount = 1 + r.IntN(3)
	return fmt.Sprintf("count %d", v.Policy.SyncCount)
}

// show is what the probe tells of the model.
func (p *pg) show(v *View) {
	v.Server.WAL, v.Server.SyncNames, v.Server.Standbys = p.wal, p.names, nil
	n := ParseNames(p.names)
	for _, name := range []string{"b", "c", "d"} {
		if !p.connected[name] {
			continue
		}
		s := Standby{Name: name, State: "streaming", SyncState: "async", Flush: p.flush[name]}
		if slices.Contains(n.Names, name) {
			s.SyncState = "sync"
		}
		v.Server.Standbys = append(v.Server.Standbys, s)
	}
}

func (p *pg) take(s *SyncStep, v *View, rev int64) {
	switch {
	case s.Names != nil:
		p.names = *s.Names
	case s.Delete:
		v.Store.Sync = nil
	default:
		rec := *s.Record
		rec.ModRev = rev
		v.Store.Sync = &rec
	}
}
