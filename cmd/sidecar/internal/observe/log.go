package observe

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// LogEvents returns an observer for [tokencache.Options] that logs what a person may need. A state
// that lasts is logged when it changes and once a minute while it does, not at each event. That a
// caller got nothing is logged by the handler.
func LogEvents(log *zap.Logger) func(tokencache.Event) {
	l := &eventLog{log: log, foreign: map[tokencache.Key]bool{}}
	return l.observe
}

type eventLog struct {
	log        *zap.Logger
	complaints Complaints

	mu      sync.Mutex
	foreign map[tokencache.Key]bool // suspected foreign refreshers, as logged
	away    bool                    // Redis, as logged
}

func (l *eventLog) observe(e tokencache.Event) {
	l.redisState(e)
	l.foreignState(e)
	if _, ok := operation(e); ok {
		return
	}
	switch e.Result {
	case tokencache.ResultReread, tokencache.ResultSubscribed, tokencache.ResultFetched, tokencache.ResultProbed, tokencache.ResultLeaseWaited, tokencache.ResultAdopted,
		tokencache.ResultAdded, tokencache.ResultDropped:
		return // metrics; what comes of them is another event
	case tokencache.ResultClockStepped:
		l.log.Warn("the wall clock was stepped, or the host was suspended", zap.Duration("by", e.Took))
		return
	case tokencache.ResultEventMissed:
		if n := l.complaints.Due("missed", time.Now()); n > 0 {
			l.log.Warn("a re-read found a version that no event announced", zap.Int("times", n))
		}
		return
	}
	level, message := describe(e)
	if c := l.log.Check(level, message); c != nil {
		c.Write(fields(e)...)
	}
}

// describe says how much an event matters, and in which words.
func describe(e tokencache.Event) (zapcore.Level, string) {
	switch e.Result {
	case tokencache.ResultCommitted:
		return zap.InfoLevel, "token replaced"
	case tokencache.ResultFailed:
		f, ok := errors.AsType[*tokencache.FetchError](e.Err)
		switch {
		case ok && f.Unclear:
			return zap.WarnLevel, "refresh failed, and upstream may have issued a value that is lost"
		case ok && f.Class == tokencache.ClassLimited: // thousands at once, when Redis was emptied
			return zap.DebugLevel, "refresh waits for its turn"
		}
		return zap.WarnLevel, "refresh failed"
	case tokencache.ResultLeaseLost:
		return zap.WarnLevel, "lease lost during a refresh"
	case tokencache.ResultLeaseCapped:
		return zap.WarnLevel, "a lock key in Redis would have stopped every refresh"
	case tokencache.ResultDataLost:
		return zap.WarnLevel, "Redis lost data: it was emptied, or a failover lost writes"
	case tokencache.ResultRefused:
		return zap.WarnLevel, "lease lost during a refresh, the fetched value is not used"
	case tokencache.ResultOrphaned:
		return zap.WarnLevel, "Redis lost during a refresh, the fetched value is for this replica only"
	case tokencache.ResultDirect:
		return zap.WarnLevel, "fetched without Redis, for this replica only"
	case tokencache.ResultThrottled:
		return zap.WarnLevel, "an allowance of upstream calls is spent"
	case tokencache.ResultUnknown:
		return zap.WarnLevel, "upstream does not say whether it rejects a reported value"
	default:
		return zap.DebugLevel, "nothing replaced"
	}
}

// fields are those of an event, named as the labels of the metrics.
func fields(e tokencache.Event) []zap.Field {
	fs := []zap.Field{
		zap.String("app", e.Key.App), zap.String("kind", e.Key.Kind),
		zap.String("reason", string(e.Reason)), zap.String("result", string(e.Result)),
		zap.Int64("version", e.Version), zap.Duration("took", e.Took),
	}
	if f, ok := errors.AsType[*tokencache.FetchError](e.Err); ok {
		fs = append(fs, zap.String("class", string(f.Class)), zap.Int("errcode", f.Code))
	}
	if e.Err != nil {
		fs = append(fs, zap.String("error", e.Err.Error()))
	}
	return fs
}

// redisState logs that Redis went away or came back.
func (l *eventLog) redisState(e tokencache.Event) {
	failed, isStore := operation(e)
	if !isStore && !throughRedis(e.Result) {
		return
	}
	if isStore && failed.Op == "watch" && failed.Answered() {
		if n := l.complaints.Due("events", time.Now()); n > 0 {
			l.log.Warn("redis refuses the events of the other replicas", redisFields(failed, n)...)
		}
		return
	}
	if isStore {
		switch class := failed.Class(); class {
		case tokencache.StoreNoPerm, tokencache.StoreReadOnly, tokencache.StoreOOM:
			// It answers, and what it refuses it may go on refusing between operations that it does
			// not.
			if n := l.complaints.Due(string(class), time.Now()); n > 0 {
				l.log.Error("redis refuses an operation", redisFields(failed, n)...)
			}
			return
		}
	}
	l.mu.Lock()
	was := l.away
	l.away = isStore
	l.mu.Unlock()
	switch {
	case isStore:
		if n := l.complaints.Due("redis", time.Now()); n > 0 {
			l.log.Warn("redis unreachable", redisFields(failed, n)...)
		}
	case was:
		l.log.Info("redis back")
	}
}

func redisFields(e *tokencache.StoreError, failures int) []zap.Field {
	return []zap.Field{zap.String("op", e.Op), zap.String("class", string(e.Class())), zap.Int("failures", failures), zap.String("error", e.Error())}
}

// throughRedis reports whether a result, with no error of Redis, shows that Redis answers.
func throughRedis(r tokencache.Result) bool {
	switch r {
	case tokencache.ResultCommitted, tokencache.ResultUnchanged, tokencache.ResultDoubtResolved, tokencache.ResultShared, tokencache.ResultBackoff,
		tokencache.ResultThrottled, tokencache.ResultAccepted, tokencache.ResultRefused, tokencache.ResultReread:
		return true
	}
	return false
}

// foreignState logs that the suspicion of another refresher arose or ended.
func (l *eventLog) foreignState(e tokencache.Event) {
	if e.Key == (tokencache.Key{}) {
		return
	}
	l.mu.Lock()
	was := l.foreign[e.Key]
	if e.ForeignRefresher {
		l.foreign[e.Key] = true
	} else {
		delete(l.foreign, e.Key)
	}
	l.mu.Unlock()
	app, kind := zap.String("app", e.Key.App), zap.String("kind", e.Key.Kind)
	switch {
	case e.ForeignRefresher && !was:
		l.log.Warn("foreign refresher suspected: values are rejected while young", app, kind)
	case was && !e.ForeignRefresher:
		l.log.Info("foreign refresher no longer suspected", app, kind)
	}
}

// Complaints keeps what lasts from being logged at each occurrence. The zero value is ready for
// use. Safe for concurrent use. Its keys are of a bounded set.
type Complaints struct {
	mu  sync.Mutex
	all map[string]*complaint
}

type complaint struct {
	logged time.Time
	since  int // occurrences since then
}

// complainEvery is the least time between two log lines about the same.
const complainEvery = time.Minute

// Due counts an occurrence, and returns how many there were since the last log line if it is time
// for another, else 0.
func (c *Complaints) Due(what string, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]*complaint{}
	}
	one := c.all[what]
	if one == nil {
		one = &complaint{}
		c.all[what] = one
	}
	one.since++
	if !one.logged.IsZero() && now.Sub(one.logged) < complainEvery {
		return 0
	}
	n := one.since
	one.logged, one.since = now, 0
	return n
}
