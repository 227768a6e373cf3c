package tokencache_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// thousandSize is the size of TestAThousandReplicas: how many replicas and apps, and for how long
// events arrive before they are lost. WXTOKEN_FLEET=1000x100, as make fleet sets it, is the whole
// of it; WXTOKEN_LONG=1 is between.
func thousandSize(t *testing.T) (replicas, apps int, span time.Duration) {
	size := os.Getenv("WXTOKEN_FLEET")
	switch {
	case size != "":
		if _, err := fmt.Sscanf(size, "%dx%d", &replicas, &apps); err != nil {
			t.Fatalf("WXTOKEN_FLEET=%s: %v", size, err)
		}
		return replicas, apps, time.Hour
	case long:
		return 500, 100, 20 * time.Minute
	}
	return 200, 100, time.Minute
}

// All replicas of a fleet start at one moment. Whatever happens then, they cost Redis a bounded
// number of looks in every second; a new version reaches all of them at once, or within the stated
// bound if every event is lost. Looks are answered by [tokencache.HotRead], one after the other.
func TestAThousandReplicas(t *testing.T) {
	t.Parallel()
	replicas, apps, span := thousandSize(t)
	synctest.Test(t, func(t *testing.T) {
		f := &thousand{apps: apps, span: span, fetches: map[string]int{}, scripts: tokencache.Scripts(), start: time.Now()}
		f.cluster = tokencachetest.New(t, 0, &upstream{}, tokencachetest.Hook(func(string) redis.Hook { return f }))
		f.HotRead = tokencache.NewHotRead(f.cluster.Redis)
		f.add(t, 1)
		f.wantReady(t, time.Minute)
		f.add(t, replicas-1)
		f.wantReady(t, 30*time.Second)

		// As docs/performance.md states it.
		bound := max(10*time.Second, min(time.Duration(replicas*apps)*time.Second/1200, 210*time.Second)) + 15*time.Second
		f.want(t, "with events", 250*time.Millisecond, func() { time.Sleep(span) })
		for _, r := range f.cluster.Replicas {
			r.Link.Mute()
			if got := r.Cache.Health().RereadBound; got > bound {
				t.Fatalf("the bound is %v, want %v", got, bound)
			}
		}
		f.want(t, "without events", bound, func() {
			// Not by renewals: each replica finds these by itself within a minute.
			for i := range apps {
				f.replace(t, fleetKey(i))
				time.Sleep(bound / time.Duration(apps))
			}
		})
	})
}

// thousand is many replicas, what they cost Redis, and how late they are. It is the [redis.Hook] of
// all of them, and their upstream: each app is renewed once in span, one after the other.
type thousand struct {
	*tokencache.HotRead
	cluster *cluster
	apps    int
	span    time.Duration
	scripts map[string]string // by hash
	start   time.Time

	mu      sync.Mutex
	fetches map[string]int // by app
	looks   [2][]int       // by second: all, and those of the slow re-read
	busy    time.Time      // until when Redis answers earlier looks
	follows bool           // new versions
	behind  sync.WaitGroup // those that have not reached all replicas
	late    []time.Duration
}

// lookTakes is how long Redis is busy with a look, as make figures measures it.
const lookTakes = 50 * time.Microsecond

func (f *thousand) add(t *testing.T, replicas int) {
	for range replicas {
		r := f.cluster.Add()
		list := make([]tokencache.Credential, f.apps)
		for i := range list {
			list[i] = tokencache.Credential{Key: fleetKey(i), Source: timetable{f, i}, Fingerprint: "f"}
		}
		if err := r.Cache.Set(list...); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range f.cluster.Replicas[len(f.cluster.Replicas)-replicas:] {
		r.Start()
	}
}

// timetable is the source of one app.
type timetable struct {
	f   *thousand
	app int
}

// Fetch implements [tokencache.Source].
func (s timetable) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	k := fleetKey(s.app)
	s.f.fetches[k.App]++
	renewIn := s.f.span
	if s.f.fetches[k.App] == 1 {
		renewIn = 30*time.Second + s.f.span*time.Duration(s.app)/time.Duration(s.f.apps)
	}
	value := fmt.Sprintf("TOKEN-%s-%d", k.App, s.f.fetches[k.App])
	return tokencache.Value{Value: secret.New(value), Life: renewIn + 5*time.Minute, RenewLeft: 5 * time.Minute}, nil
}

// ProcessHook implements [redis.Hook].
func (f *thousand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	answer := f.HotRead.ProcessHook(next)
	return func(ctx context.Context, cmd redis.Cmder) error {
		f.look(cmd)
		err := answer(ctx, cmd)
		if args := cmd.Args(); err == nil && cmd.Name() == "evalsha" && f.scripts[args[1].(string)] == "commit" {
			f.committed(args[3].(string))
		}
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (f *thousand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	answer := f.HotRead.ProcessPipelineHook(next)
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f.look(cmds...)
		return answer(ctx, cmds)
	}
}

// look counts the looks among commands, and waits until Redis has the time for them.
func (f *thousand) look(cmds ...redis.Cmder) {
	if look, _ := f.Look(cmds[0]); !look {
		return
	}
	f.mu.Lock()
	second := f.second()
	for i := range f.looks {
		for len(f.looks[i]) <= second {
			f.looks[i] = append(f.looks[i], 0)
		}
	}
	f.looks[0][second] += len(cmds)
	if _, brief := f.Look(cmds[0]); brief {
		f.looks[1][second] += len(cmds)
	}
	now := time.Now()
	if f.busy.Before(now) {
		f.busy = now
	}
	f.busy = f.busy.Add(time.Duration(len(cmds)) * lookTakes)
	wait := f.busy.Sub(now)
	f.mu.Unlock()
	time.Sleep(wait)
}

func (f *thousand) second() int { return int(time.Since(f.start) / time.Second) }

// committed follows a new version until every replica has it.
func (f *thousand) committed(key string) {
	app := strings.TrimSuffix(key[strings.Index(key, "{")+1:], "}:access_token")
	var version int64
	_, _ = fmt.Sscan(f.cluster.Redis.HGet(key+":meta", "version"), &version)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.follows {
		return
	}
	began, left := time.Now(), slices.Clone(f.cluster.Replicas)
	f.behind.Go(func() {
		var late time.Duration // when a replica was last seen without it
		for step := 10 * time.Millisecond; ; time.Sleep(step) {
			left = slices.DeleteFunc(left, func(r *replica) bool {
				return r.Cache.Peek(tokencache.Key{App: app, Kind: "access_token"}).Version >= version
			})
			if len(left) == 0 {
				break
			}
			if late = time.Since(began); late > 500*time.Millisecond {
				step = time.Second
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.late = append(f.late, late)
	})
}

// wantReady waits until every replica has a value of each app, and Redis has answered everything.
func (f *thousand) wantReady(t *testing.T, limit time.Duration) {
	t.Helper()
	ready := func(r *replica) bool {
		for i := range f.apps {
			if !r.Cache.Peek(fleetKey(i)).Good {
				return false
			}
		}
		return true
	}
	for start := time.Now(); slices.ContainsFunc(f.cluster.Replicas, func(r *replica) bool { return !ready(r) }) || f.isBusy(); time.Sleep(500 * time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("not all of %d replicas have %d values after %v", len(f.cluster.Replicas), f.apps, limit)
		}
	}
}

func (f *thousand) isBusy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy.After(time.Now())
}

// replace lets one replica report a value, and so replace it.
func (f *thousand) replace(t *testing.T, k tokencache.Key) {
	t.Helper()
	c := f.cluster.Replicas[0].Cache
	token, err := c.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if next, err := c.Report(t.Context(), k, token.Value); err != nil || next.Version <= token.Version {
		t.Fatalf("%+v, %v", next, err)
	}
}

// want observes the replicas during a time. It fails the test if any second has 3000 looks of the
// slow re-read, or the average second of all, or if a version takes longer than late to reach the
// last replica. A version costs one look of each replica, in the second in which it comes.
func (f *thousand) want(t *testing.T, how string, late time.Duration, during func()) {
	t.Helper()
	f.follow(true)
	began := f.second() + 1
	during()
	f.follow(false)
	f.behind.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	sum, seconds, slow := 0, len(f.looks[0])-began, slices.Max(f.looks[1][began:])
	most := slices.Max(f.looks[0][began:])
	for _, n := range f.looks[0][began:] {
		sum += n
	}
	t.Logf("%s, %d looks a second in %d s, at most %d, of the slow re-read alone at most %d", how, sum/seconds, seconds, most, slow)
	if slow >= 3000 || sum/seconds >= 3000 {
		t.Errorf("%s, too many looks", how)
	}
	if len(f.late) == 0 {
		t.Fatalf("%s, no new version", how)
	}
	slices.Sort(f.late)
	last := f.late[len(f.late)-1]
	t.Logf("%s, %d versions reach the last replica after %v in the median, %v at most", how, len(f.late), f.late[len(f.late)/2], last)
	if last > late {
		t.Errorf("%s, a version reaches the last replica after %v, want at most %v", how, last, late)
	}
	f.late = nil
}

func (f *thousand) follow(versions bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follows = versions
}
