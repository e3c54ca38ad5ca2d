package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// SyncMode is synchronous_mode.
type SyncMode string

// The synchronous modes: none, named standbys, any of a quorum.
const (
	SyncOff    SyncMode = "off"
	SyncOn     SyncMode = "on"
	SyncQuorum SyncMode = "quorum"
)

// Dynamic is the dynamic configuration with its defaults filled in.
type Dynamic struct {
	TTL, LoopWait, RetryTimeout                time.Duration
	MaximumLagOnFailover, MaximumLagOnSyncNode int64 // bytes; the second: 0 or less is off
	SynchronousMode                            SyncMode
	SynchronousModeStrict                      bool
	SynchronousNodeCount                       int
	FailsafeMode, CheckTimeline, Pause         bool
	PrimaryStartTimeout, PrimaryStopTimeout    time.Duration // stop: 0 is no limit
	PrimaryRaceBackoff                         time.Duration
	MaxTimelinesHistory                        int // 0 is all
	MemberSlotsTTL                             time.Duration
	UseSlots                                   bool
	Haven                                      HavenDynamic

	// Slots are the permanent ones, sorted by name; IgnoreSlots those that are left alone.
	Slots, IgnoreSlots []Slot
	// StandbyCluster is as written; nil when it is not.
	StandbyCluster json.RawMessage
	// Postgres is the object postgresql as written; nil when there is none. See PostgresWith.
	Postgres json.RawMessage
	// Raw is the whole document.
	Raw json.RawMessage
}

// HavenDynamic is the object haven of the dynamic configuration.
type HavenDynamic struct {
	Takeover                                           bool
	SuspectAfter, Heartbeat, SwitchoverWait, CrashWait time.Duration
	// HungAfter is how long a server may answer no new connection; 0: any time, negative: it follows ttl.
	HungAfter time.Duration
	// CloneLimit automatic copies of one member in CloneWindow.
	CloneLimit  int
	CloneWindow time.Duration
}

// Least values that the dynamic configuration may have, as Patroni raises them, and Haven's own for ttl.
const (
	minTTL          = 20 * time.Second
	minTTLHaven     = 5 * time.Second
	derivedBelow    = 10 * time.Second
	minLoopWait     = time.Second
	minRetryTimeout = 3 * time.Second
	minSuspect      = 200 * time.Millisecond
	minHung         = 3 * time.Second
)

type dynamicReader struct {
	doc      *tree.Value
	schema   *schema.Table
	warnings []string
}

// ParseDynamic reads the dynamic configuration. A value that is wrong is a warning and its default is used, since a
// running cluster must not stop for it; only a text that is no JSON object is an error. allHaven tells that every
// member key was written by Haven: ttl may then be as low as 5 s, and below 10 s loop_wait and retry_timeout follow
// from it. The timing rule is loop_wait + 2*retry_timeout <= ttl. The document itself is never changed.
//
// A key that has no effect in this version is a warning, unless it asks for what happens anyway.
func ParseDynamic(raw json.RawMessage, allHaven bool) (Dynamic, []string, error) {
	doc, err := tree.FromJSON(raw, tree.Place{Note: "dynamic configuration"})
	if err != nil {
		return Dynamic{}, nil, fmt.Errorf("dynamic configuration: %w", err)
	}
	r := &dynamicReader{doc: doc, schema: schema.New()}
	d := r.read(allHaven)
	d.Raw = raw
	r.inert()
	return d, r.warnings, nil
}

func (r *dynamicReader) read(allHaven bool) Dynamic {
	d := Dynamic{
		MaximumLagOnFailover: max(0, r.size("maximum_lag_on_failover")), MaximumLagOnSyncNode: r.size("maximum_lag_on_syncnode"),
		SynchronousMode: r.syncMode(), SynchronousModeStrict: r.bool("synchronous_mode_strict"), SynchronousNodeCount: r.number("synchronous_node_count"),
		FailsafeMode: r.bool("failsafe_mode"), CheckTimeline: r.bool("check_timeline"), Pause: r.bool("pause"),
		PrimaryStartTimeout: r.duration(r.newer("primary_start_timeout", "master_start_timeout")),
		PrimaryStopTimeout:  r.duration(r.newer("primary_stop_timeout", "master_stop_timeout")),
		PrimaryRaceBackoff:  r.duration("primary_race_backoff"),
		MaxTimelinesHistory: r.number("max_timelines_history"), MemberSlotsTTL: max(0, r.duration("member_slots_ttl")),
		UseSlots:       r.bool("postgresql.use_slots"),
		StandbyCluster: r.raw("standby_cluster"), Postgres: r.raw("postgresql"),
	}
	wrong := func(_ tree.Place, format string, args ...any) { r.warn(format, args...) }
	clusterType := primaryCluster
	if _, standby := d.Standby(); standby {
		clusterType = standbyCluster
	}
	d.Slots, d.IgnoreSlots = permanentSlots(r.doc, clusterType, wrong), ignoredSlots(r.doc, wrong)
	r.haven(&d.Haven)
	r.timing(&d, allHaven)
	return d
}

func (r *dynamicReader) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// text is the value of a key, or its default where it is absent or not valid.
func (r *dynamicReader) text(path string) string {
	k := r.schema.At("bootstrap.dcs." + path).Key
	v := r.doc.Find(path)
	if v == nil || v.Shape == tree.Null {
		return k.Def
	}
	if v.Shape != tree.Scalar {
		r.warn("`%s` is %s, so its default %s is used", path, schema.Described(v), k.Def)
		return k.Def
	}
	if err := k.Check(v.Text); err != nil {
		r.warn("`%s` is `%s`, so its default %s is used: %v", path, v.Text, k.Def, err)
		return k.Def
	}
	return v.Text
}

// The parsers below cannot fail: text returns what check has accepted, or a default.

func (r *dynamicReader) bool(path string) bool {
	b, _ := notation.ParseBool(r.text(path))
	return b
}

func (r *dynamicReader) number(path string) int {
	n, _ := strconv.Atoi(r.text(path))
	return n
}

func (r *dynamicReader) size(path string) int64 {
	n, _ := notation.ParseSize(r.text(path))
	return n
}

func (r *dynamicReader) duration(path string) time.Duration {
	d, _ := notation.ParseDuration(r.text(path))
	return d
}

func (r *dynamicReader) raw(path string) json.RawMessage {
	v := r.doc.Find(path)
	if v == nil || v.Shape == tree.Null {
		return nil
	}
	out, err := tree.Encode(v.Any())
	if err != nil { // what was decoded can be encoded
		return nil
	}
	return out
}

// newer chooses the older name of a key only where the newer is absent.
func (r *dynamicReader) newer(name, older string) string {
	if r.doc.Find(name) == nil && r.doc.Find(older) != nil {
		if err := r.schema.At("bootstrap.dcs." + name).Key.Check(r.doc.Find(older).TextOr("")); err == nil {
			return older
		}
	}
	return name
}

func (r *dynamicReader) syncMode() SyncMode {
	s := r.text("synchronous_mode")
	if strings.EqualFold(s, "quorum") {
		return SyncQuorum
	}
	if on, err := notation.ParseBool(s); err == nil && on {
		return SyncOn
	}
	return SyncOff
}

func (r *dynamicReader) haven(h *HavenDynamic) {
	h.Takeover = r.bool("haven.takeover")
	h.SuspectAfter, h.Heartbeat = r.duration("haven.suspect_after"), r.duration("haven.heartbeat")
	h.SwitchoverWait, h.CrashWait = r.duration("haven.switchover_wait"), r.duration("haven.crash_wait")
	if h.SuspectAfter < minSuspect {
		r.warn("`haven.suspect_after` is below 200ms, so 200ms is used")
		h.SuspectAfter = minSuspect
	}
	if h.Heartbeat > h.SuspectAfter/3 || h.Heartbeat <= 0 {
		if r.doc.Find("haven.heartbeat") != nil {
			r.warn("`haven.heartbeat` must be at most a third of `suspect_after`, so %s is used", h.SuspectAfter/3)
		}
		h.Heartbeat = h.SuspectAfter / 3
	}
	h.HungAfter = -1
	if r.text("haven.hung_after") != "" {
		h.HungAfter = r.duration("haven.hung_after")
	}
	if h.HungAfter > 0 && h.HungAfter < minHung {
		r.warn("`haven.hung_after` is below 3s, so 3s is used; 0 switches it off")
		h.HungAfter = minHung
	}
	var err error
	limit := r.text("haven.clone_limit")
	if h.CloneLimit, h.CloneWindow, err = parseLimit(limit); err != nil {
		r.warn("`haven.clone_limit` is `%s`, so 2 per 6h is used: %v", limit, err)
		h.CloneLimit, h.CloneWindow = 2, 6*time.Hour
	}
}

func parseLimit(s string) (int, time.Duration, error) {
	count, window, ok := strings.Cut(s, " per ")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	d, derr := notation.ParseDuration(strings.TrimSpace(window))
	if !ok || err != nil || derr != nil || n < 0 || d <= 0 {
		return 0, 0, fmt.Errorf("write how many in what time: 2 per 6h")
	}
	return n, d, nil
}

// timing settles ttl, loop_wait and retry_timeout (Patroni: minima, and loop_wait + 2*retry_timeout <= ttl).
func (r *dynamicReader) timing(d *Dynamic, allHaven bool) {
	least := minTTL
	if allHaven {
		least = minTTLHaven
	}
	d.TTL = r.atLeast("ttl", least).Truncate(time.Second)
	if d.TTL < derivedBelow {
		d.LoopWait, d.RetryTimeout = minLoopWait, (d.TTL-time.Second)/2
		return
	}
	d.LoopWait, d.RetryTimeout = r.atLeast("loop_wait", minLoopWait), r.atLeast("retry_timeout", minRetryTimeout)
	if d.LoopWait+2*d.RetryTimeout <= d.TTL {
		return
	}
	if minLoopWait+2*d.RetryTimeout > d.TTL {
		d.LoopWait, d.RetryTimeout = minLoopWait, ((d.TTL - time.Second) / 2).Truncate(time.Second)
	} else {
		d.LoopWait = d.TTL - 2*d.RetryTimeout
	}
	r.warn("`loop_wait` + 2*`retry_timeout` is more than `ttl` (%s), so loop_wait %s and retry_timeout %s are used", d.TTL, d.LoopWait, d.RetryTimeout)
}

func (r *dynamicReader) atLeast(path string, least time.Duration) time.Duration {
	v := r.duration(path)
	if v < least {
		r.warn("`%s` is %s, below its least value, so %s is used", path, v, least)
		return least
	}
	return v
}
