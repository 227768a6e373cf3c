package tokencache

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
)

const (
	// storeTimeout bounds one operation on Redis, retries included, from the moment it is sent.
	storeTimeout = time.Second
	// maxOperations is how many operations on Redis a replica has under way at once: fewer than the
	// connections of the smallest pool that go-redis makes by itself. So none waits for a
	// connection, and a time that runs out says something about Redis.
	maxOperations = 8
)

var (
	//go:embed lua/prelude.lua
	preludeLua string
	//go:embed lua/load.lua
	loadLua string
	//go:embed lua/begin.lua
	beginLua string
	//go:embed lua/commit.lua
	commitLua string
	//go:embed lua/finish.lua
	finishLua string
	//go:embed lua/cut.lua
	cutLua string
	//go:embed lua/caplease.lua
	capLeaseLua string
	//go:embed lua/discard.lua
	discardLua string
	//go:embed lua/revoke.lua
	revokeLua string
	//go:embed lua/retry.lua
	retryLua string
)

// store is the shared copy in Redis. It knows nothing of upstream. Every script takes the same keys
// and may be repeated: go-redis sends it again when a reply is lost.
type store struct {
	rdb       redis.UniversalClient
	namespace string
	events    string // the channel
	replica   string
	secrets   []secret.String // what no text of an error may hold
	health    health
	kept      atomic.Int64  // how many credentials there are
	turns     chan struct{} // one for each operation that may be under way at once
	scratch   bool          // the credential has a journal of its own: see [Rehearse]

	scripts struct{ load, begin, commit, finish, cut, capLease, discard, revoke, retry *redis.Script }
}

func newStore(rdb redis.UniversalClient, namespace, replica string, secrets ...secret.String) *store {
	script := func(body string) *redis.Script { return redis.NewScript(preludeLua + body) }
	s := &store{rdb: rdb, namespace: namespace, events: acl.Channel(rdb, namespace), replica: replica, secrets: secrets, turns: make(chan struct{}, maxOperations)}
	s.scripts.load = script(loadLua)
	s.scripts.begin = script(beginLua)
	s.scripts.commit = script(commitLua)
	s.scripts.finish = script(finishLua)
	s.scripts.cut = script(cutLua)
	s.scripts.capLease = script(capLeaseLua)
	s.scripts.discard = script(discardLua)
	s.scripts.revoke, s.scripts.retry = script(revokeLua), script(retryLua)
	return s
}

func (s *store) channel() string { return s.events }

func (s *store) valueKey(k Key) string { return s.namespace + ":{" + k.App + "}:" + k.Kind }

func (s *store) lockKey(k Key) string { return s.valueKey(k) + ":lock" }

func (s *store) keys(k Key) []string {
	value, journal := s.valueKey(k), s.journalKey(k.App)
	if s.scratch {
		journal = value + ":journal"
	}
	return []string{value, value + ":meta", s.lockKey(k), value + ":backoff", journal}
}

// argument is one argument of a script. A script reads its arguments by name.
type argument struct {
	name  string
	value any
}

// arguments returns what a script is called with: the arguments that every script takes, then its
// own, each after its name.
func (s *store) arguments(c *Credential, own []argument) []any {
	scope := c.Fingerprint
	if scope == "" {
		scope = "none"
	}
	list := []any{"scope", scope, "channel", s.channel(), "app", c.Key.App, "kind", c.Key.Kind, "by", s.replica,
		"journal_length", journalLength(int(s.kept.Load()))}
	for _, a := range own {
		list = append(list, a.name, a.value)
	}
	return list
}

// turn waits until an operation may be sent, and returns its context. The wait itself says nothing
// about Redis: an end of ctx is returned as it is. But while Redis is silent, each operation has
// its turn for a second. An operation that waits then shares the finding of those before it.
func (s *store) turn(ctx context.Context, k Key, op string) (_ context.Context, done func(), _ error) {
	began := time.Now()
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if s.health.silentSince(began) {
		<-s.turns
		return nil, nil, s.failed(k, op, errSilent)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	return ctx, func() { cancel(); <-s.turns }, nil
}

// errSilent is the end of an operation that was not sent, because those before it had no answer.
var errSilent = fmt.Errorf("no operation on Redis was answered meanwhile: %w", context.DeadlineExceeded)

func (s *store) run(ctx context.Context, script *redis.Script, op string, c *Credential, own ...argument) (any, error) {
	ctx, done, err := s.turn(ctx, c.Key, op)
	if err != nil {
		return nil, err
	}
	defer done()
	reply, err := script.Run(ctx, s.rdb, s.keys(c.Key), s.arguments(c, own)...).Result()
	if err != nil {
		return nil, s.failed(c.Key, op, err)
	}
	s.health.answered(op)
	return reply, nil
}

// obtain tries once to obtain a lease. The error is [lock.ErrHeld] if another replica has it.
func (s *store) obtain(ctx context.Context, k Key, l *lock.Lock) (*lock.Lease, error) {
	turn, done, err := s.turn(ctx, k, "lease")
	if err != nil {
		return nil, err
	}
	defer done()
	lease, err := l.Obtain(turn)
	switch {
	case err == nil || errors.Is(err, lock.ErrHeld):
		s.health.answered("lease")
		return lease, err
	default:
		return nil, s.failed(k, "lease", err)
	}
}

// decode reads a state that op answered.
func (s *store) decode(c *Credential, op string, reply any) (state, error) {
	st, err := decodeState(reply)
	if err != nil {
		return state{}, s.failed(c.Key, op, err)
	}
	st.scope = c.Fingerprint
	return st, nil
}

// load reads the present state.
func (s *store) load(ctx context.Context, c *Credential) (state, error) {
	reply, err := s.run(ctx, s.scripts.load, "load", c)
	if err != nil {
		return state{}, err
	}
	return s.decode(c, "load", reply)
}

// loadAll reads many credentials in one round trip per Redis node; the two results correspond to
// creds. brief is as of lua/prelude.lua.
func (s *store) loadAll(ctx context.Context, creds []*Credential, brief bool) ([]state, []error) {
	own := []argument{{"brief", flag(brief)}}
	states, errs := make([]state, len(creds)), make([]error, len(creds))
	turn, done, err := s.turn(ctx, Key{}, opLoad)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return states, errs
	}
	pipe := s.rdb.Pipeline()
	replies := make([]*redis.Cmd, len(creds))
	for i, c := range creds {
		replies[i] = s.scripts.load.EvalSha(turn, pipe, s.keys(c.Key), s.arguments(c, own)...)
	}
	_, failed := pipe.Exec(turn)
	done()
	for i, r := range replies {
		reply, err := resultOf(r, failed)
		switch {
		case err != nil && redis.HasErrorPrefix(err, "NOSCRIPT"):
			// Redis has been restarted or is another node: Run sends the script itself.
			states[i], errs[i] = s.load(ctx, creds[i])
		case err != nil:
			errs[i] = s.failed(creds[i].Key, "load", err)
		default:
			s.health.answered("load")
			states[i], errs[i] = s.decode(creds[i], "load", reply)
		}
	}
	return states, errs
}

// resultOf returns the reply of one command of a pipeline, whose own error is failed. A pipeline
// for which go-redis has no connection, because a Sentinel refuses the password, say, leaves its
// commands without a reply and without an error.
func resultOf(r *redis.Cmd, failed error) (any, error) {
	reply, err := r.Result()
	if err == nil && reply == nil && failed != nil {
		return nil, failed
	}
	return reply, err
}

// decision is what the lease holder may do after begin; lua/begin.lua explains each.
type decision string

const (
	decisionLost         decision = "lost"
	decisionDone         decision = "done"
	decisionBackoff      decision = "backoff"
	decisionLimited      decision = "limited"
	decisionProbe        decision = "probe"
	decisionResolveDoubt decision = "resolve_doubt"
	decisionGo           decision = "go"
)

// begun is begin's answer. wait belongs to limited.
type begun struct {
	decision decision
	wait     time.Duration
	state    state
}

// life is how long this replica expects the key of a version to live in Redis.
type life struct {
	left      time.Duration // < 0: not known
	confirmed int64         // as of [state]
}

var unknownLife = life{left: -1}

// beginRequest is what the holder of a lease asks the script begin.
type beginRequest struct {
	lease           string
	reason          Reason
	version         int64 // that the refresh is to replace
	canResolveDoubt bool  // this replica could resolve a doubt by a probe
	known           life  // of that version
}

// begin is the double check, the allowances and the cut, in one step under the lease.
func (s *store) begin(ctx context.Context, c *Credential, q beginRequest) (begun, error) {
	reports, fetches := c.Reports.or(defaultReports), c.Fetches.or(defaultFetches)
	reply, err := s.run(ctx, s.scripts.begin, "begin", c,
		argument{"lease", q.lease}, argument{"reason", string(q.reason)}, argument{"want", q.version},
		argument{"cut", ms(c.cut())}, argument{"overlap", ms(c.Overlap + leaseTTL)},
		argument{"can_resolve_doubt", flag(q.canResolveDoubt)},
		argument{"fetch_every", ms(fetches.every())}, argument{"fetch_burst", fetches.burst()},
		argument{"report_every", ms(reports.every())}, argument{"report_burst", reports.burst()},
		argument{"force_every", ms(c.Forced.every())}, argument{"force_burst", c.Forced.burst()},
		argument{"force_gap", ms(forceGap)},
		argument{"probe_gap", ms(probeGap)}, argument{"probe_burst", probeBurst},
		argument{"young_age", ms(youngAge)},
		argument{"known_left", max(-1, ms(q.known.left))}, argument{"known_confirmed", q.known.confirmed})
	if err != nil {
		return begun{}, err
	}
	b, err := decodeBegun(reply)
	if err != nil {
		return begun{}, s.failed(c.Key, "begin", err)
	}
	b.state.scope = c.Fingerprint
	return b, nil
}

// errRefused means that the lease was lost before the write that it guards.
var errRefused = errors.New("the lease is lost")

// commit stores v, whose life is counted from now on, if the lease is still held, and releases it.
// The new version is greater than floor. It returns the state afterwards.
func (s *store) commit(ctx context.Context, c *Credential, lease string, v Value, floor int64, r Reason, took time.Duration) (state, error) {
	reply, err := s.run(ctx, s.scripts.commit, "commit", c,
		argument{"lease", lease}, argument{"value", v.Value.Reveal()}, argument{"digest", v.Value.Fingerprint()}, argument{"mark", string(markOf(v.Value))},
		argument{"life", ms(v.Life)}, argument{"margin", ms(c.margin(v.Life))}, argument{"renew_left", ms(v.RenewLeft)},
		argument{"floor", floor}, argument{"cut", ms(c.cut())}, argument{"reason", string(r)}, argument{"took", ms(took)})
	if err != nil {
		return state{}, err
	}
	if reply == int64(-1) {
		return state{}, errRefused
	}
	return s.decode(c, "commit", reply)
}

// outcome is how a lease ends without a value.
type outcome struct {
	reason  Reason
	result  Result
	undo    bool        // nothing was issued for sure: take the cut back
	failed  *FetchError // nil: no backoff
	atLeast time.Duration
	took    time.Duration
}

// finish ends the lease; it reports errRefused if the lease was already lost.
func (s *store) finish(ctx context.Context, c *Credential, lease string, e outcome) error {
	where, body := "*", []byte("{}")
	var base, limit time.Duration
	code := 0
	if f := e.failed; f != nil {
		code = f.Code
		if f.Class == ClassLocal { // its backoff is in the memory of this pod
			where = "local"
		} else {
			base, limit = f.Class.backoff()
		}
		if f.Class == ClassPermanent && c.Fingerprint != "" {
			where = c.Fingerprint
		}
		body, _ = json.Marshal(note{f.Class, f.Code, short(f.Message, maxNote)}) // strings and a number: cannot fail
	}
	// Half to all of the time: replicas must not come back in step.
	jitter := 0.5 + rand.Float64()/2
	reply, err := s.run(ctx, s.scripts.finish, "finish", c,
		argument{"lease", lease}, argument{"reason", string(e.reason)}, argument{"result", string(e.result)},
		argument{"undo", flag(e.undo)}, argument{"where", where}, argument{"base", ms(base)}, argument{"cap", ms(limit)},
		argument{"at_least", ms(e.atLeast)}, argument{"jitter", fmt.Sprintf("%.3f", jitter)},
		argument{"note", string(body)}, argument{"took", ms(e.took)}, argument{"code", code}, argument{"probe_gap", ms(probeGap)},
		argument{"ended", flag(e.failed != nil && e.failed.Class == ClassEnded)})
	if err != nil {
		return err
	}
	if err = decodeFinished(reply); errors.Is(err, errReply) {
		return s.failed(c.Key, "finish", err)
	}
	return err
}

// cut shortens the life of the present value, on behalf of a lease that is lost. It does so once
// for each lease.
func (s *store) cut(ctx context.Context, c *Credential, t pendingCut) error {
	n := now()
	left := max(time.Millisecond, c.cut()-n.since(t.first))
	// A replica that committed so long after this request was over had begun its own after that. A
	// request that was given up may still be on its way until the time to work is over; one whose
	// reply came later acted later. The monotonic clock counts here, because it is never too fast.
	before := max(0, n.mono-t.over.mono-workTime-leaseTTL)
	_, err := s.run(ctx, s.scripts.cut, "cut", c,
		argument{"left", ms(left)}, argument{"reason", string(t.reason)}, argument{"why", string(t.why)},
		argument{"lease", t.lease}, argument{"before", ms(before)})
	return err
}

// capLease shortens the life of a lock key that outlives every lease. It reports whether this call
// did it.
func (s *store) capLease(ctx context.Context, c *Credential) (bool, error) {
	reply, err := s.run(ctx, s.scripts.capLease, "caplease", c, argument{"lease_ttl", ms(leaseTTL)})
	return reply == int64(1), err
}

// revoke takes the value back, without a lease.
func (s *store) revoke(ctx context.Context, c *Credential) error {
	_, err := s.run(ctx, s.scripts.revoke, "revoke", c)
	return err
}

// retry forgets the backoff, without a lease.
func (s *store) retry(ctx context.Context, c *Credential) error {
	_, err := s.run(ctx, s.scripts.retry, "revoke", c)
	return err
}

// discard deletes a value that no commit can have written, if the lease is still held.
func (s *store) discard(ctx context.Context, c *Credential, lease string) error {
	reply, err := s.run(ctx, s.scripts.discard, "discard", c, argument{"lease", lease})
	if err == nil && reply != int64(1) {
		return errRefused
	}
	return err
}
