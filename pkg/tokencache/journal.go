package tokencache

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

//go:embed lua/journal.lua
var journalLua string

var journalScript = redis.NewScript(journalLua)

// ErrJournalDenied says that Redis answers, but that the user of this process may not read the
// journal.
var ErrJournalDenied = errors.New("no permission to read the journal: add +xrevrange to the ACL of the Redis user")

// Entry is one line of the journal: what a replica did. It holds no value.
type Entry struct {
	Key     Key
	By      string // the replica's name
	Reason  Reason
	Result  Result
	Why     Result        // of [ResultCut]: [ResultRefused], [ResultOrphaned], [ResultFailed], or [ResultFetch] for one before a fetch
	Version int64         // of the value that stood afterwards; 0: none
	Took    time.Duration // from the start of the refresh; 0 if unknown
	Code    int           // upstream's error code; 0: none
	Backoff time.Duration // that the cluster has to wait
	// Age is the time from the entry to the answer, both by the clock of the same Redis node.
	Age time.Duration
}

// Journal is what one replica can see of all of them.
type Journal struct {
	Replica   string // this one's name in the journal
	Reachable bool   // Redis answered, if only with an error
	Took      time.Duration
	// Listeners is how many connections listen for events: the running replicas of this namespace
	// and database. -1 if that is not known, as without the permission +pubsub|numsub.
	Listeners int
	Entries   []Entry // of all apps, newest first
}

// Journal asks Redis what the replicas did lately: at most perApp entries (at least 1) of each
// app's journal, and the newest 1000 of all apps together. ctx bounds it; a short deadline shows
// quickly whether Redis answers.
//
// The error is [ErrJournalDenied], or a *[StoreError] of the first app whose journal could not be
// read. The Journal has what was found out all the same.
func (c *Cache) Journal(ctx context.Context, perApp int) (Journal, error) {
	seen := Journal{Replica: c.opts.Replica, Listeners: -1}
	start := time.Now()
	entries, err := c.store.journals(ctx, c.apps(), max(1, perApp))
	seen.Entries, seen.Took = entries, time.Since(start)
	seen.Reachable = err == nil || answered(err) || errors.Is(err, ErrJournalDenied)
	if seen.Reachable {
		if n, err := c.store.listeners(ctx); err == nil {
			seen.Listeners = n
		}
	}
	return seen, err
}

// apps returns the ids of all apps, in order.
func (c *Cache) apps() []string {
	var ids []string
	for _, sl := range c.kept() {
		ids = append(ids, sl.spec.Load().Key.App)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// answered reports whether err is Redis' own, so that Redis is there.
func answered(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) || errors.Is(err, errReply)
}

// journals reads the journals of apps, and returns the newest entries first.
func (s *store) journals(ctx context.Context, apps []string, perApp int) (entries []Entry, failed error) {
	for some := range slices.Chunk(apps, journalsAtOnce) {
		part, err := s.someJournals(ctx, some, perApp)
		entries = append(entries, part...)
		slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Age, b.Age) })
		entries = entries[:min(len(entries), mostEntries)]
		if failed == nil {
			failed = err
		}
		if err != nil && (!answered(err) || errors.Is(err, ErrJournalDenied)) {
			break // the others have nothing else to say
		}
	}
	return entries, failed
}

const (
	journalsAtOnce = 100  // of the apps, in one round trip: Redis answers others between two of them
	mostEntries    = 1000 // of all apps together, the newest
)

// someJournals is journals in one round trip, in no order.
func (s *store) someJournals(ctx context.Context, apps []string, perApp int) (entries []Entry, failed error) {
	pipe := s.rdb.Pipeline()
	replies := make([]*redis.Cmd, len(apps))
	for i, app := range apps {
		replies[i] = journalScript.EvalSha(ctx, pipe, []string{s.journalKey(app)}, perApp)
	}
	_, broken := pipe.Exec(ctx)
	for i, r := range replies {
		reply, err := resultOf(r, broken)
		if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			reply, err = journalScript.Run(ctx, s.rdb, []string{s.journalKey(apps[i])}, perApp).Result()
		}
		var part []Entry
		if err == nil {
			part, err = decodeJournal(apps[i], reply)
		}
		if err != nil && failed == nil {
			failed = s.journalError(ctx, apps[i], err)
			if !answered(err) || errors.Is(failed, ErrJournalDenied) {
				break // the others have nothing else to say
			}
		}
		entries = append(entries, part...)
	}
	return entries, failed
}

// journalError finds out why a journal could not be read. When the ACL denies a script a command,
// Redis answers with the text of the script's error; the bare command gets the code NOPERM.
func (s *store) journalError(ctx context.Context, app string, err error) error {
	if answered(err) {
		bare := s.rdb.XRevRangeN(ctx, s.journalKey(app), "+", "-", 1).Err()
		if redis.HasErrorPrefix(bare, "NOPERM") {
			return ErrJournalDenied
		}
	}
	return &StoreError{Op: "journal", Err: secret.ScrubRedisError(err, s.secrets...)}
}

func (s *store) journalKey(app string) string { return s.namespace + ":{" + app + "}:journal" }

// journalLength is after how many entries the journal of an app drops the oldest.
//
// The most is a week of an app with a token and two tickets on the endpoint where each fetch is two
// entries: 16 refreshes a day of the token, 12 of each ticket. Redis drops whole blocks, of 4 KiB
// and so some 50 entries, once as many as the length remain without them. With many credentials the
// length is less, so that the journals do not fill Redis. With thousands a journal is less than one
// block: as soon as it is full, it begins anew.
func journalLength(credentials int) int {
	const most, ofAll, block, short = 600, 120_000, 50, 30 // short: the same number as in prelude.lua
	return max(short, min(most, ofAll/max(1, credentials)-block))
}

// countListeners returns the number of subscriptions to the channel; 0 if it is not known, as
// without the permission +pubsub|numsub.
func (s *store) countListeners(ctx context.Context) int {
	turn, done, err := s.turn(ctx, Key{}, opLoad)
	if err != nil {
		return 0
	}
	defer done()
	n, err := s.listeners(turn)
	if err != nil {
		return 0
	}
	return n
}

// listeners counts the subscriptions to the channel. In a Redis Cluster each node knows its own.
func (s *store) listeners(ctx context.Context) (int, error) {
	channel := s.channel()
	cluster, ok := s.rdb.(*redis.ClusterClient)
	if !ok {
		n, err := s.rdb.PubSubNumSub(ctx, channel).Result()
		return int(n[channel]), err
	}
	var sum atomic.Int64
	err := cluster.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
		n, err := node.PubSubNumSub(ctx, channel).Result()
		sum.Add(n[channel])
		return err
	})
	return int(sum.Load()), err
}

// decodeJournal reads lua/journal.lua's answer. A client that may write to Redis can write to the
// journal, so it takes anything: what is no entry of a script is left out.
func decodeJournal(app string, reply any) ([]Entry, error) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 2 {
		return nil, errReply
	}
	now, ok1 := parts[0].(int64)
	list, ok2 := parts[1].([]any)
	if !ok1 || !ok2 {
		return nil, errReply
	}
	entries := make([]Entry, 0, len(list))
	for _, item := range list {
		if e, ok := decodeEntry(app, now, item); ok {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func decodeEntry(app string, now int64, item any) (Entry, bool) {
	parts, ok := item.([]any)
	if !ok || len(parts) != 2 {
		return Entry{}, false
	}
	id, ok1 := parts[0].(string)
	fields, ok2 := parts[1].([]any)
	stamp, _, _ := strings.Cut(id, "-")
	at, err := strconv.ParseInt(stamp, 10, 64)
	if !ok1 || !ok2 || err != nil || at < 0 {
		return Entry{}, false
	}
	e := Entry{Key: Key{App: app}, Age: bounded(now - at)} // not below 0: Redis' clock may have been stepped back
	for i := 0; i+1 < len(fields); i += 2 {
		name, ok1 := fields[i].(string)
		text, ok2 := fields[i+1].(string)
		if ok1 && ok2 {
			e.set(name, text)
		}
	}
	return e, e.Key.validate() == nil && e.Result != ""
}

// set takes one field as the scripts write it. An unknown one is of a later version.
func (e *Entry) set(name, text string) {
	number := func() int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	switch name {
	case "kind":
		e.Key.Kind = text
	case "by":
		e.By = short(text, maxWord)
	case "reason":
		e.Reason = Reason(short(text, maxWord))
	case "result":
		e.Result = Result(short(text, maxWord))
	case "why":
		e.Why = Result(short(text, maxWord))
	case "version":
		e.Version = max(0, number())
	case "took_ms":
		e.Took = bounded(number())
	case "code":
		e.Code = int(number())
	case "backoff_ms":
		e.Backoff = bounded(number())
	}
}
