package haven

import (
	"fmt"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// feature is a thing that Patroni does, and how it is here.
type feature struct {
	name, ours string
	tests      string // names, parted by blanks; empty: by no test of its own
}

// chapter is a group of features.
type chapter struct {
	title    string
	features []feature
}

// The verdicts that most features have.
const (
	same    = "the same"
	missing = "**not there**"
)

func chapters() []chapter {
	return []chapter{
		{"Around it", []feature{
			{"`patroni.yml`, directories of files, `PATRONI_*` variables", "the same keys; see [configuration keys](configuration.md)", "TestGuideMinusNow TestGuideDatabaseArticle TestGuideFirebackup TestGuideTwoServers TestEveryGuideStartsACluster TestPatroniFileOfAGuideStartsACluster"},
			{"keys and values in etcd, leases", "the same, and own keys below `haven/`; see [layout](dcs-layout.md)", "TestEncodeKeepsTheLayout TestDecode TestMixedCluster"},
			{"etcd by its v3 protocol", "over gRPC, where Patroni uses the JSON gateway", "TestConformanceExternal"},
			{"etcd v2, Consul, ZooKeeper, Exhibitor, Kubernetes, raft", missing + ": a section `etcd` is read as v3, the others are refused", ""},
			{"members of Patroni beside those of Haven, in one cluster", "each takes over from each, also in synchronous mode and after a `kill -9`, with Debian's 3.0.2; with 4.0.7 in quorum and failsafe mode too (`make mixed`)", "TestMixedCluster TestMixedClusterWithPatroni4"},
			{"one data directory and one file for both", "taken over as it is, and given back as it is", "TestMembersAreReplaced"},
			{"Citus", missing + ": `citus` is refused; `POST /citus` and `/mpp` are answered, and do nothing", "TestAccess"},
		}},
		{"patronictl", []feature{
			{"the genuine `patronictl` on a cluster of Haven's", "list, topology, dsn, query, show-config, version, history, reload, pause, resume, edit-config, restart, reinit, switchover, failover, flush, remove", "TestPatronictlCommands TestGenuineToolsWork"},
			{"Haven called `patronictl`, or `haven patronictl …`", "the commands, options, prompts and tables of 4.1; the same output and status as Debian's 3.0.2 but for the tables of members", "TestPatronictlIsSpoken TestScripts"},
			{"exit status", "1 where something failed; Patroni's ends with 0 after a failed switchover, restart, reload or query", "TestScripts"},
			{"`edit-config`", "what would not be valid is refused; shown without a pager", "TestScripts"},
			{"`restart` of several members", "replicas first, the leader last; Patroni's takes the order of the list", "TestScripts"},
			{"`reinit`", "old data is moved aside, not deleted", "TestReinitializeOnDemand"},
			{"`remove`", same + ", and it says what it did", "TestScripts"},
			{"`demote-cluster`, `promote-cluster`", "the request is sent to the leader and awaited; it needs `standby_cluster`", "TestScripts"},
			{"`--group`", "refused, as there is no Citus", "TestScripts"},
		}},
		{"REST API", []feature{
			{"health checks and their parameters", same, "TestHealthChecks TestMixedCluster"},
			{"status document, `/cluster`, `/history`, `/config`, `/failsafe`", same + ", with all fields of 4.1 but the congestion of the log's queue, which does not exist here", "TestStatusDocument TestClusterDocuments TestMixedCluster"},
			{"`/liveness`, `/readiness`", same, "TestLivenessAndReadiness"},
			{"`/metrics`", "all names of 4.1, and [Haven's own](metrics.md)", "TestMetrics"},
			{"switchover, failover and their texts", same, "TestRequestsAreChecked TestRequestsInPauseAndSynchronousMode"},
			{"restart, reinitialize, reload", same + "; a failed restart tells why behind `restart failed`", "TestOperatorsOrders TestOrdersThatAreRefusedEverywhere"},
			{"`PATCH` and `PUT /config`", "what would not be valid is refused with 400", "TestConfigChanges TestMistakenConfigIsNotStored"},
			{"TLS, client certificates, passwords, allowlist", same, "TestTLS TestAccess"},
			{"HTTP/1.0, one request for each connection", "HTTP/1.1", ""},
			{"`Server` header", "`Haven/VERSION`, unless `server_tokens` says otherwise", "TestUnknownActionsAndBodies"},
		}},
		{"Behaviour", []feature{
			{"behaviour as a whole", "section by section, with what differs: [behaviour](behaviour.md)", "TestBehaviour TestEverySectionHasAScenario"},
			{"failover", "events, not a loop: a crash is acted on when it happens; in a synchronous mode a standby takes over at once", "TestNothingAcknowledgedIsLost TestClusterSurvivesItsPrimary"},
			{"the lease", "a renewal is proven against etcd's quorum; a guard process ends the server with its lease", "TestGuardEndsTheServerOfADeadAgent TestServerDiesWithItsDeadline"},
			{"switchover, also scheduled", same + "; a request is judged by how the standbys stand after it came", "TestCleanSwitchover TestScheduledSwitchover TestMixedCluster"},
			{"maintenance mode", same + "; `reinit`, and the restart of a server that is down, are refused", "TestPause TestBehaviour"},
			{"synchronous mode, strict, quorum", same + "; a standby that falls silent is replaced after 2 s", "TestStrictModeWaits TestQuorumModeLosesNothing"},
			{"failsafe mode", same, "TestFailsafe TestFailsafeNeedsEveryMember"},
			{"watchdog", same + "; the guard feeds it", "TestWatchdog TestWatchdogThatCannotBeHad TestBehaviour"},
			{"standby cluster", same, "TestStandbyCluster TestBehaviour"},
			{"cascading (`replicatefrom`, `nostream`)", "follows that member while it streams itself", "TestReplicateFrom TestBehaviour"},
			{"custom bootstrap, copies by commands, callbacks, scripts", same, "TestOperatorsCommands TestCopiesByCommands TestBehaviour"},
			{"`patroni.dynamic.json`", same + ", but maintenance mode is not taken from it", "TestBehaviour"},
			{"permanent, ignored and logical slots", "a slot that Haven did not make is left alone; a logical one of which there is no copy is not made anew", "TestPermanentSlots TestIgnoredSlots TestALeaderWithoutTheSlotDoesNotSkip"},
			{"`pg_rewind`, new copies", "what held data is moved aside, never deleted", "TestDivergedPrimaryRejoins TestMoveAsideKeepsEverything"},
			{"pending restarts with their reasons", same, "TestRestartOnDemand"},
		}},
	}
}

func patroniPage() string {
	var b strings.Builder
	b.WriteString("# Patroni's features\n\n" + generated)
	b.WriteString(`What Patroni 4.1 does, how it is with Haven, and the test that shows it; "–": no test of its own.
[Coming from Patroni](../guide/from-patroni.md) tells how to move a cluster.
`)
	for _, c := range chapters() {
		fmt.Fprintf(&b, "\n## %s\n\n| Patroni | Haven | test |\n| --- | --- | --- |\n", c.title)
		for _, f := range c.features {
			tests := "–"
			if f.tests != "" {
				tests = "`" + strings.Join(strings.Fields(f.tests), "`, `") + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", f.name, f.ours, tests)
		}
	}
	b.WriteString(`
## Settings without effect

These are read and checked, and nothing acts on them in this version; ` + "`haven config check`" + ` tells of those that a file has.

| key | |
| --- | --- |
`)
	keys := config.Reference()
	slices.SortStableFunc(keys, func(a, b config.KeyDoc) int { return strings.Compare(a.Path, b.Path) })
	for _, d := range keys {
		if d.Inert != "" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", d.Path, cell(d.Inert))
		}
	}
	return b.String()
}
