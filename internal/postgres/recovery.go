package postgres

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/pidfile"
)

// Recovery is what the replay of a server does that may not answer yet.
type Recovery struct {
	// Doing is the title of the startup process, with the processor time and the bytes that it has had, so that the text
	// changes when it comes on. It is empty when that is not known: there is none, it has not begun to replay, or titles are
	// switched off (update_process_title).
	Doing string
	// Busy: it waits for the disk, or for a command (restore_command) that has run for busyAfter or longer. A text that
	// does not change is no sign then that nothing comes.
	Busy bool
}

// busyAfter is how long a restore_command runs that has something to fetch, rather than find out that there is nothing.
const busyAfter = 5 * time.Second

// Steps in which the text of a Recovery changes. A replay that stands still tries again every five seconds
// (wal_retrieve_retry_interval), for which it needs some milliseconds, and reads some pages.
const (
	cpuStep  = 100 * time.Millisecond
	readStep = 1 << 20
)

// Recovery tells what the replay of the server does.
func (i *Instance) Recovery() Recovery {
	pids, err := i.Processes()
	if err != nil {
		return Recovery{}
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		title := strings.TrimRight(string(b), "\x00 ")
		_, doing, ok := strings.Cut(title, "startup")
		replays := strings.HasPrefix(doing, " recovering ") || strings.HasPrefix(doing, " waiting for ")
		if err != nil || !ok || !strings.HasPrefix(title, "postgres: ") || doing != "" && !replays {
			continue
		}
		return recoveryOf(pid, strings.TrimSpace(doing))
	}
	return Recovery{}
}

func recoveryOf(pid int, doing string) Recovery {
	st, err := pidfile.ReadStat(pid)
	if err != nil {
		return Recovery{}
	}
	r := Recovery{Busy: st.State == 'D' || longestChild(pid) >= busyAfter}
	if doing != "" {
		r.Doing = fmt.Sprintf("%s, %s of processor time, %d MB read and written", doing, st.CPU.Truncate(cpuStep), moved(pid)/readStep)
	}
	return r
}

// longestChild is how long the oldest child of that process has run; 0: it has none. The file of children is Linux's
// CONFIG_PROC_CHILDREN, which all distributions set.
func longestChild(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	var longest time.Duration
	for _, field := range strings.Fields(string(b)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			continue
		}
		if st, err := pidfile.ReadStat(child); err == nil {
			longest = max(longest, time.Since(st.Start))
		}
	}
	return longest
}

// moved is how many bytes the process itself has read and written, whether from the disk or from memory; 0: that is not told.
// (The file of the process, not of its one thread, has those of its children too, which say nothing.)
func moved(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/io", pid, pid))
	if err != nil {
		return 0
	}
	var sum int64
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == "rchar" || name == "wchar") {
			sum += n
		}
	}
	return sum
}
