package resident

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Trim gives back the pages of the program's file, code and constants, and returns how many bytes
// they were. Those that are used come again, from the kernel's cache of the file; the others, some
// of which ran only at the start, no longer count as memory of this process. Safe for concurrent
// use.
func Trim() (bytes int, err error) {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("finding the program's file: %w", err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("finding the program's pages: %w", err)
	}
	for _, m := range mappings(string(smaps)) {
		if !m.isAll(file) {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			return bytes, fmt.Errorf("giving back the program's pages: %w", errno)
		}
		bytes += m.resident
	}
	return bytes, nil
}

// mapping is a part of the address space.
type mapping struct {
	start, end    uintptr
	writable      bool
	file          string
	resident, own int // bytes; own are those that are no longer the file's
}

// isAll reports whether all that is there is in a file, and stays so. A mapping with pages of its
// own has been written to, by the loader of a relocatable program or by a debugger.
func (m mapping) isAll(file string) bool { return m.file == file && !m.writable && m.own == 0 }

// mappings reads a /proc/PID/smaps, as proc(5) describes it.
func mappings(smaps string) (all []mapping) {
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		if from, to, ok := strings.Cut(fields[0], "-"); ok {
			m := mapping{start: address(from), end: address(to), writable: strings.Contains(fields[1], "w")}
			if len(fields) > 5 {
				m.file = strings.Join(fields[5:], " ")
			}
			all = append(all, m)
			continue
		}
		kib, err := strconv.Atoi(fields[1])
		if len(all) == 0 || err != nil {
			continue
		}
		switch m := &all[len(all)-1]; fields[0] {
		case "Rss:":
			m.resident = kib << 10
		case "Anonymous:":
			m.own = kib << 10
		}
	}
	return all
}

func address(text string) uintptr {
	n, _ := strconv.ParseUint(text, 16, strconv.IntSize) // the kernel wrote it
	return uintptr(n)
}
