package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// clockInC takes the place of libc's clocks in a program that is linked to it. (libfaketime does
// the same, but not in a redis-server with jemalloc, which asks for the time before libfaketime is
// ready.)
const clockInC = `#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void map(void) {
	int fd = open(getenv("` + clockSetting + `"), O_RDONLY);
	void *m = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED) abort();
	shift = m;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int r = syscall(SYS_clock_gettime, id, t);
	if (r == 0 && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *shift;
	return r;
}

int gettimeofday(struct timeval *tv, void *zone) {
	struct timespec t;
	int r = clock_gettime(CLOCK_REALTIME, &t);
	tv->tv_sec = t.tv_sec, tv->tv_usec = t.tv_nsec / 1000;
	return r;
}

time_t time(time_t *at) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (at) *at = t.tv_sec;
	return t.tv_sec;
}
`

var clockLibrary = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, []byte(clockInC), 0o600); err != nil {
		return "", err
	}
	return library, exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", library, source).Run()
})

// StartRedisWithClock starts a server whose wall clock the test sets. It skips the test where there
// is no C compiler.
func StartRedisWithClock(t testing.TB, args ...string) (*Redis, *Clock) {
	t.Helper()
	library, err := clockLibrary()
	if err != nil {
		t.Skipf("a clock for redis-server needs a C compiler: %v", err)
	}
	c := newClock(t)
	return startRedis(t, []string{"LD_PRELOAD=" + library, clockSetting + "=" + c.file}, args), c
}
