package statuspage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Configuration is what /status says of the configuration. It holds no secret.
type Configuration struct {
	// Warnings are those of the configuration in force, one line each.
	Warnings []string
	// Read is when the configuration was last read again; zero: not since the start.
	Read time.Time
	// Err says why the one read then is not in force; nil: it is.
	Err error
	// NeedsRestart names what has changed in it and waits for a restart.
	NeedsRestart []string
}

// Status is the answer of /status as JSON, which the command status decodes, too. All durations are
// whole seconds, but for those in _ms.
type Status struct {
	Started       bool                `json:"started"`
	Missing       string              `json:"missing,omitempty"` // for the start
	Stopping      bool                `json:"stopping"`
	Level         level               `json:"level"` // the worst of the problems
	Problems      []problemStatus     `json:"problems"`
	Uptime        int64               `json:"uptime"`
	Version       string              `json:"version"` // of this program
	Revision      string              `json:"revision"`
	Replica       string              `json:"replica,omitempty"` // its name in the journal
	Apps          []App               `json:"apps"`
	Platforms     []Platform          `json:"platforms,omitempty"`
	Redis         *redisStatus        `json:"redis,omitempty"`
	Configuration configurationStatus `json:"configuration"`
	Replicas      []replicaStatus     `json:"replicas,omitempty"`
	Journal       *journalStatus      `json:"journal,omitempty"`
}

// level says how much a person is needed.
type level string

const (
	levelWell      level = "well"
	levelAttention level = "attention" // tokens are served, but a person should look
	levelTrouble   level = "trouble"   // something cannot be served
)

// rank orders levels, the worst first.
func (l level) rank() int {
	return slices.Index([]level{levelTrouble, levelAttention, levelWell}, l)
}

// App is one app of a [Status].
type App struct {
	ID          string       `json:"id"`
	Alias       string       `json:"alias,omitempty"`
	Credentials []Credential `json:"credentials"`

	platform apps.Platform
}

// Credential is one credential of an [App], without its value.
type Credential struct {
	Kind             string    `json:"kind"`
	State            string    `json:"state"` // fresh; stale: not good for sure; missing
	Condition        condition `json:"condition"`
	Version          int64     `json:"version"`
	ExpiresIn        int64     `json:"expires_in"`
	RenewIn          int64     `json:"renew_in"`
	LeavesRedisIn    int64     `json:"leaves_redis_in"` // when the margin begins; 0: it is not there
	Confirmed        int64     `json:"confirmed"`       // how long ago Redis was asked for this
	InDoubt          bool      `json:"in_doubt"`
	Rejected         bool      `json:"rejected"`
	ForeignRefresher bool      `json:"foreign_refresher"`
	Backoff          int64     `json:"backoff,omitempty"`
	Error            string    `json:"error,omitempty"`
}

// condition is the state of a credential in more detail than fresh, stale and missing.
type condition string

const (
	conditionFresh    condition = "fresh"
	conditionDue      condition = "due"         // good, and upstream has a better one
	conditionStale    condition = "stale"       // it lives, but is not good for sure
	conditionDoubt    condition = "in doubt"    // upstream may have superseded it
	conditionRejected condition = "rejected"    // upstream does not accept it
	conditionBackoff  condition = "backing off" // there is none, and upstream must not be asked now
	conditionMissing  condition = "missing"
)

type redisStatus struct {
	Reachable bool   `json:"reachable"`
	TookMS    int64  `json:"took_ms"`
	Confirmed int64  `json:"confirmed"`      // how long ago Redis was asked for what is known of the credentials
	Listening bool   `json:"listening"`      // events arrive
	Deaf      string `json:"deaf,omitempty"` // why not, as soon as it is known
	Listeners *int   `json:"listeners,omitempty"`
	Error     string `json:"error,omitempty"`
}

type configurationStatus struct {
	Warnings []string      `json:"warnings"`
	Reload   *reloadStatus `json:"reload,omitempty"` // the last one
}

type reloadStatus struct {
	Age          int64    `json:"age"`
	OK           bool     `json:"ok"`
	Error        string   `json:"error,omitempty"`
	NeedsRestart []string `json:"needs_restart,omitempty"`
}

type replicaStatus struct {
	Name    string `json:"name"`
	This    bool   `json:"this,omitempty"`
	Age     int64  `json:"age"`     // of its last entry
	Entries int    `json:"entries"` // of those shown
}

type journalStatus struct {
	Error   string        `json:"error,omitempty"`
	Entries []entryStatus `json:"entries"`
}

type entryStatus struct {
	Age     int64             `json:"age"` // by Redis' clock
	App     string            `json:"app"`
	Kind    string            `json:"kind"`
	By      string            `json:"by"`
	Reason  tokencache.Reason `json:"reason"`
	Result  tokencache.Result `json:"result"`
	Why     tokencache.Result `json:"why,omitempty"`
	Version int64             `json:"version,omitempty"`
	TookMS  int64             `json:"took_ms"`
	Errcode int               `json:"errcode,omitempty"`
	Backoff int64             `json:"backoff,omitempty"`
}

func (s Status) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return buf, web.TypeJSON // cannot be: strings and numbers
	}
	return append(append(buf, body...), '\n'), web.TypeJSON
}

const (
	// lookTime bounds the look at Redis: a page that waits for what is broken is useless.
	lookTime = 300 * time.Millisecond
	// What the page shows of the journals. Of many apps each has less.
	shownEntries = 40
	leastPerApp  = 3
)

// look gathers everything.
func (h *Handler) look() Status {
	s := Status{
		Uptime: seconds(time.Since(h.since)), Version: build.Version(), Revision: build.Revision(), Stopping: h.opts.Stopping(),
		Apps: []App{}, Problems: []problemStatus{}, Configuration: configurationOf(h.opts.Configuration()),
	}
	s.Started, s.Missing = h.opts.Started()
	all := slices.Clone(h.opts.Status())
	slices.SortFunc(all, func(a, b tokencache.Status) int {
		return cmp.Or(cmp.Compare(a.Key.App, b.Key.App), cmp.Compare(a.Key.Kind, b.Key.Kind))
	})
	var found problems
	apps := h.opts.Apps()
	for _, c := range h.platforms(&s, all, &found) {
		if n := len(s.Apps); n == 0 || s.Apps[n-1].ID != c.Key.App {
			app := App{ID: c.Key.App}
			if known := apps.Named(c.Key.App); known != nil {
				app.Alias, app.platform = known.Alias, known.Platform
			}
			s.Apps = append(s.Apps, app)
		}
		app := &s.Apps[len(s.Apps)-1]
		app.Credentials = append(app.Credentials, credentialStatusOf(c))
		found.credential(app, c)
	}
	h.redis(&s, all, &found)
	found.configuration(s.Configuration)
	s.Problems, s.Level = found.sorted(), found.worst()
	return s
}

func credentialStatusOf(c tokencache.Status) Credential {
	s := Credential{
		Kind: c.Key.Kind, State: "missing", Condition: conditionOf(c), Version: c.Version, ExpiresIn: seconds(c.ExpiresIn),
		RenewIn: seconds(max(0, c.RenewIn)), LeavesRedisIn: seconds(c.KeyIn), Confirmed: seconds(c.Confirmed),
		InDoubt: c.InDoubt, Rejected: c.Rejected, ForeignRefresher: c.ForeignRefresher, Backoff: seconds(c.Backoff),
	}
	switch {
	case c.Fresh:
		s.State = "fresh"
	case c.Known:
		s.State = "stale"
	}
	if c.Err != nil {
		s.Error = c.Err.Error()
	}
	return s
}

func conditionOf(c tokencache.Status) condition {
	switch {
	case !c.Known && c.Backoff > 0:
		return conditionBackoff
	case !c.Known:
		return conditionMissing
	case c.Rejected:
		return conditionRejected
	case c.InDoubt:
		return conditionDoubt
	case !c.Fresh:
		return conditionStale
	case c.RenewIn <= 0:
		return conditionDue
	}
	return conditionFresh
}

// lookEvery is how often /status reads the journals from Redis at most, whatever asks for it.
const lookEvery = time.Second

// looks keeps the last look at Redis. The zero value has none.
type looks struct {
	asking singleflight.Group
	last   atomic.Pointer[look]
}

// look is what [Options.Journal] returned, and when.
type look struct {
	tokencache.Journal
	err  error
	made time.Time
}

// take returns the last look, or a new one if that is older than lookEvery. All who ask meanwhile
// wait for it, no longer than lookTime, and share it.
func (l *looks) take(perApp int, ask func(context.Context, int) (tokencache.Journal, error)) *look {
	shared, _, _ := l.asking.Do("", func() (any, error) {
		if last := l.last.Load(); last != nil && time.Since(last.made) < lookEvery {
			return last, nil
		}
		// Not under the request's context: others share this look.
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		defer cancel()
		seen, err := ask(ctx, perApp)
		next := &look{seen, err, time.Now()}
		l.last.Store(next)
		return next, nil
	})
	return shared.(*look)
}

// redis asks Redis, and says what came of it.
func (h *Handler) redis(s *Status, all []tokencache.Status, found *problems) {
	if h.opts.Journal == nil {
		return
	}
	perApp := max(leastPerApp, shownEntries/max(1, len(s.Apps)))
	seen := h.looks.take(perApp, h.opts.Journal)
	health := h.opts.Health()
	r := &redisStatus{Reachable: seen.Reachable, TookMS: seen.Took.Milliseconds(), Listening: health.Subscribed}
	if health.SubscribeErr != nil {
		r.Deaf = text.Redis(health.SubscribeErr)
	}
	if seen.Listeners >= 0 && seen.Reachable {
		r.Listeners = &seen.Listeners
	}
	if len(all) > 0 {
		latest := slices.MinFunc(all, func(a, b tokencache.Status) int { return cmp.Compare(a.Confirmed, b.Confirmed) })
		r.Confirmed = seconds(latest.Confirmed)
	}
	s.Replica, s.Redis, s.Journal = seen.Replica, r, &journalStatus{Entries: []entryStatus{}}
	switch {
	case errors.Is(seen.err, tokencache.ErrJournalDenied):
		s.Journal.Error = seen.err.Error()
	case seen.err != nil && seen.Reachable:
		s.Journal.Error, r.Error = text.Redis(seen.err), text.Redis(seen.err)
	case seen.err != nil:
		s.Journal.Error, r.Error = "Redis does not answer.", text.Redis(seen.err)
	}
	found.redis(r)
	s.journal(seen.Entries)
}

// journal takes the newest entries, and who made them.
func (s *Status) journal(entries []tokencache.Entry) {
	entries = entries[:min(len(entries), shownEntries)]
	for _, e := range entries {
		s.Journal.Entries = append(s.Journal.Entries, entryStatus{
			Age: seconds(e.Age), App: e.Key.App, Kind: e.Key.Kind, By: e.By, Reason: e.Reason, Result: e.Result, Why: e.Why,
			Version: e.Version, TookMS: e.Took.Milliseconds(), Errcode: e.Code, Backoff: seconds(e.Backoff),
		})
		i := slices.IndexFunc(s.Replicas, func(r replicaStatus) bool { return r.Name == e.By })
		if i < 0 { // the newest comes first
			i = len(s.Replicas)
			s.Replicas = append(s.Replicas, replicaStatus{Name: e.By, This: e.By == s.Replica, Age: seconds(e.Age)})
		}
		s.Replicas[i].Entries++
	}
}

func configurationOf(c Configuration) configurationStatus {
	s := configurationStatus{Warnings: append([]string{}, c.Warnings...)}
	if !c.Read.IsZero() {
		s.Reload = &reloadStatus{Age: seconds(time.Since(c.Read)), OK: c.Err == nil, NeedsRestart: c.NeedsRestart}
		if c.Err != nil {
			s.Reload.Error = c.Err.Error()
		}
	}
	return s
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
