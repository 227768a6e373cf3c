package resident

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// program returns the mappings of the test's own file that cannot be written to.
func program(t *testing.T) (own []mapping) {
	t.Helper()
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mappings(string(smaps)) {
		if m.file == file && !m.writable {
			own = append(own, m)
		}
	}
	return own
}

func resident(all []mapping) (bytes int) {
	for _, m := range all {
		bytes += m.resident
	}
	return bytes
}

func TestTrimGivesBackThePagesOfTheProgram(t *testing.T) {
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for _, m := range program(t) { // all of it becomes resident
		if _, err := memory.ReadAt(make([]byte, m.end-m.start), int64(m.start)); err != nil {
			t.Fatal(err)
		}
	}
	before := resident(program(t))
	given, err := Trim()
	if err != nil {
		t.Fatal(err)
	}
	after := resident(program(t))
	if given < before || after > before*3/4 {
		t.Errorf("of %d bytes, %d were given back, and there are %d", before, given, after)
	}
}

// What a loader or a debugger has written is not in the file.
func TestTrimKeepsWhatIsNotTheFiles(t *testing.T) {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	page, err := syscall.Mmap(int(file.Fd()), 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(page) }()
	const written = "not the file's"
	copy(page, written)
	if err := syscall.Mprotect(page, syscall.PROT_READ); err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, m := range program(t) {
		seen = seen || m.start == uintptr(unsafe.Pointer(&page[0]))
	}
	if _, err := Trim(); err != nil || !seen {
		t.Fatalf("%v; the page was seen: %v", err, seen)
	}
	if got := string(page[:len(written)]); got != written {
		t.Errorf("the page begins with %q", got)
	}
}

func TestWhatIsGivenBackIsAllInTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		m    mapping
		want bool
	}{
		"code":                         {mapping{file: "/a", resident: 9}, true},
		"of another file":              {mapping{file: "/b", resident: 9}, false},
		"of no file":                   {mapping{resident: 9}, false},
		"data, about to be written to": {mapping{file: "/a", resident: 9, writable: true}, false},
		"code that was written to":     {mapping{file: "/a", resident: 9, own: 1}, false},
	} {
		if got := c.m.isAll("/a"); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestMappingsAreReadAsTheKernelWritesThem(t *testing.T) {
	got := mappings(strings.TrimLeft(`
00400000-00b6b000 r-xp 00000000 fe:00 10543677                           /opt/a b
Size:               7596 kB
Rss:                6828 kB
Anonymous:             4 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Rss:                   4 kB
`, "\n"))
	want := []mapping{{0x400000, 0xb6b000, false, "/opt/a b", 6828 << 10, 4 << 10}, {0x7f0000000000, 0x7f0000001000, true, "", 4 << 10, 0}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
