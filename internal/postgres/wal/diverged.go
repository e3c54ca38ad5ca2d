package wal

import (
	"fmt"

	"github.com/havenha/haven/internal/cluster"
)

// Diverged tells whether local data, on timeline localTL and ending at localEnd, holds WAL that is not in the history of
// a remote primary on remoteTL, so that it cannot simply follow it; and why. The histories are those of localTL and
// remoteTL. Whole histories are compared, numbers and switch points: two promotions that do not know of each other take
// the same number. wasPrimary tells that the local server last ran as a primary.
//
// The remote must be a primary. Two promotions to the same number at the very same position look the same in their
// history files; they are told apart only if the local server was a primary.
func Diverged(local []cluster.HistoryLine, localTL cluster.Timeline, localEnd cluster.LSN, wasPrimary bool,
	remote []cluster.HistoryLine, remoteTL cluster.Timeline) (bool, string) {
	if localTL == 0 || remoteTL == 0 {
		return true, "a timeline is unknown"
	}
	if localTL > remoteTL {
		return true, fmt.Sprintf("local timeline %d is newer than the primary's %d", localTL, remoteTL)
	}
	for n, l := range local {
		if n >= len(remote) {
			return true, fmt.Sprintf("local timeline %d left timeline %d at %s, which the primary's history does not", localTL, l.Timeline, l.LSN)
		}
		if r := remote[n]; r.Timeline != l.Timeline || r.LSN != l.LSN {
			return true, fmt.Sprintf("local history left timeline %d at %s, the primary's left timeline %d at %s", l.Timeline, l.LSN, r.Timeline, r.LSN)
		}
	}
	if len(remote) == len(local) {
		return sameDepth(localTL, wasPrimary, remoteTL)
	}
	next := remote[len(local)]
	if next.Timeline != localTL {
		return true, fmt.Sprintf("the primary's history goes on with timeline %d, not with local timeline %d", next.Timeline, localTL)
	}
	return pastSwitch(localEnd, wasPrimary, next)
}

// sameDepth judges histories that went the same way so far.
func sameDepth(localTL cluster.Timeline, wasPrimary bool, remoteTL cluster.Timeline) (bool, string) {
	if localTL != remoteTL {
		return true, fmt.Sprintf("local timeline %d and the primary's %d began at the same point", localTL, remoteTL)
	}
	if wasPrimary {
		return true, fmt.Sprintf("both servers were a primary on timeline %d", localTL)
	}
	return false, fmt.Sprintf("the same timeline %d", localTL)
}

// pastSwitch judges local data whose timeline the primary has left.
func pastSwitch(localEnd cluster.LSN, wasPrimary bool, left cluster.HistoryLine) (bool, string) {
	switch {
	case localEnd == 0:
		return true, "the end of the local WAL is unknown"
	case localEnd > left.LSN:
		return true, fmt.Sprintf("local WAL goes on to %s on timeline %d, which the primary left at %s", localEnd, left.Timeline, left.LSN)
	case wasPrimary && localEnd < left.LSN:
		return true, fmt.Sprintf("the local server was a primary and its WAL ends at %s, before the primary left timeline %d at %s: what lies between was not written here", localEnd, left.Timeline, left.LSN)
	}
	return false, fmt.Sprintf("local WAL ends at %s on timeline %d, which the primary left at %s", localEnd, left.Timeline, left.LSN)
}
