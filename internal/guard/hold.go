package guard

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// oomScore spares the guard when memory runs out: it is small, and what it guards cannot do without it (proc(5),
// oom_score_adj).
const oomScore = "-1000"

// resistOOM returns Held, or why the kernel may choose the guard when memory runs out.
func resistOOM() string {
	const file = "/proc/self/oom_score_adj"
	if err := os.WriteFile(file, []byte(oomScore), 0); err != nil {
		now, _ := os.ReadFile(file)
		return fmt.Sprintf("not held: %v; the score is %s", err, strings.TrimSpace(string(now)))
	}
	return Held
}

// lockMemory returns Held, or why a starved machine may page the guard out. ONFAULT locks pages as they are touched:
// without it, all that Go has reserved would become resident.
func lockMemory() string {
	dropUnused()
	if !mayLock() {
		return "not held: neither CAP_IPC_LOCK nor an unlimited RLIMIT_MEMLOCK"
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Sprintf("not held: mlockall: %v", err)
	}
	return Held
}

// mayLock tells whether nothing bounds what may be locked. Under a bound, a later allocation would fail, and the guard with
// it (mlockall(2), MCL_FUTURE).
func mayLock() bool {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 fills two
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// dropUnused gives back what the start of the program's other parts has read in of its file: the guard needs little of
// it, and what it needs comes back at the first touch.
func dropUnused() {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer maps.Close()
	var at mapping
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			at = mappingOf(f, self)
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0":
			at.drop()
		}
	}
}

// mapping is a part of memory; its size is 0 if it is none of the program's file that nobody can write to.
type mapping struct{ from, size uintptr }

// mappingOf reads the first line of a mapping (proc(5), smaps).
func mappingOf(f []string, self string) mapping {
	var from, to uintptr
	if len(f) < 6 || strings.Join(f[5:], " ") != self || strings.Contains(f[1], "w") {
		return mapping{}
	}
	if n, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); n != 2 || err != nil {
		return mapping{}
	}
	return mapping{from, to - from}
}

// drop gives it back. The caller has seen that it holds nothing but what the file holds: pages that were written to before
// they were made read-only would be lost.
func (m mapping) drop() {
	if m.size > 0 {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.size, unix.MADV_DONTNEED) // else it stays: only memory is lost
	}
}
