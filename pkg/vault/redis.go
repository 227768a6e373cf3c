package vault

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

var (
	//go:embed load.lua
	loadLua string
	//go:embed save.lua
	saveLua string

	loadScript = redis.NewScript(loadLua)
	saveScript = redis.NewScript(saveLua)
)

// Redis is a [Store] in Redis: one hash for each platform, namespace:{platform}:vault, which never
// expires, and a key for each code, which does. Create it with [NewRedis]. Safe for concurrent use.
type Redis struct {
	rdb       redis.UniversalClient
	namespace string
	secrets   []secret.String
}

// NewRedis returns a store whose keys begin with namespace. It does no I/O. secrets are the
// passwords that rdb sends to Redis: a server that does not know AUTH repeats them in its error, so
// they are taken out of the text of every error. Set MaintNotificationsConfig of rdb to ModeDisabled:
// otherwise connections that begin at the same moment race for it in go-redis 9.23.
func NewRedis(rdb redis.UniversalClient, namespace string, secrets ...secret.String) *Redis {
	return &Redis{rdb, namespace, secrets}
}

// failed returns the error of an operation on Redis; nil if there is none.
func (s *Redis) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("vault: redis: %s: %w", op, secret.ScrubRedisError(err, s.secrets...))
}

const (
	// redisTimeout bounds one operation.
	redisTimeout = 2 * time.Second
	// diskTimeout is how long a write may take to reach a disk or a replica.
	diskTimeout = 1500 * time.Millisecond
	// perLoad is how many records one script reads, so that Redis serves others between two.
	perLoad = 200
	// perSave is how many records are sent before their replies are read.
	perSave = 50
)

func (s *Redis) hash(platform string) string { return s.namespace + ":{" + platform + "}:vault" }

// codes is the set of the codes whose exchange has not ended.
func (s *Redis) codes(platform string) string { return s.hash(platform) + ":codes" }

// key returns where a record is.
func (s *Redis) key(platform, id string) string {
	if IsCode(id) {
		return s.hash(platform) + ":" + id
	}
	return s.hash(platform)
}

// Load implements [Store].
func (s *Redis) Load(ctx context.Context, platform, id string) (Row, error) {
	var ids []any
	if !IsCode(id) {
		ids = []any{id}
	}
	rows, err := s.load(ctx, s.key(platform, id), ids)
	if err != nil {
		return Row{}, err
	}
	return rows[0], nil
}

// load returns the rows of ids, in their order, without their IDs.
func (s *Redis) load(ctx context.Context, key string, ids []any) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	reply, err := loadScript.Run(ctx, s.rdb, []string{key}, ids...).Slice()
	if err != nil {
		return nil, s.failed("load", err)
	}
	if len(reply) != 2 {
		return nil, errReply
	}
	texts, ok := reply[1].([]any)
	now, err := strconv.ParseInt(fmt.Sprint(reply[0]), 10, 64)
	if !ok || err != nil || len(texts) != max(1, len(ids)) && len(texts) != 0 {
		return nil, errReply
	}
	rows := make([]Row, max(1, len(ids)))
	for i, text := range texts {
		if text == nil {
			continue
		}
		if rows[i], err = decodeRow(fmt.Sprint(text), now); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// errReply says that something else than this package wrote to its keys.
var errReply = errors.New("vault: redis: what is at the vault's keys was not written by wxtoken")

func decodeRow(text string, now int64) (r Row, err error) {
	parts := strings.Fields(text)
	if len(parts) != 5 {
		return Row{}, errReply
	}
	number := func(s string) (n int64) {
		var bad error
		if n, bad = strconv.ParseInt(s, 10, 64); bad != nil || n < 0 {
			err = errReply
		}
		return n
	}
	r.Rev, r.State, r.Order = number(parts[0]), State(parts[1]), number(parts[2])
	r.Age = max(0, time.Duration(now-number(parts[3]))*time.Millisecond)
	var bad error
	if r.Sealed, bad = base64.StdEncoding.DecodeString(parts[4]); bad != nil || r.Rev == 0 {
		err = errReply
	}
	return r, err
}

// Save implements [Store]. A row that [Row.NeedsDisk] is acknowledged when Redis has written it to
// its append-only file (since Redis 7.2), or else when a replica has it, if there is one; without
// either, at once: see [Redis.Check].
func (s *Redis) Save(ctx context.Context, r Row) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	key := s.key(r.Platform, r.ID)
	// Redis waits for the writes of one connection, so both commands need the same one.
	conn, err := s.conn(ctx, key)
	if err != nil {
		return 0, s.failed("save", err)
	}
	defer conn.Close()
	rev, err := saveScript.Run(ctx, conn, []string{key, s.codes(r.Platform)}, saveArgs(r)...).Int64()
	switch {
	case err != nil:
		return 0, s.failed("save", err)
	case rev < 0:
		return 0, ErrConflict
	case r.NeedsDisk():
		if err := waitForDisk(ctx, conn); err != nil {
			return 0, s.failed("save", err)
		}
	}
	return rev, nil
}

// saveArgs are the arguments of save.lua.
func saveArgs(r Row) []any {
	return []any{r.ID, r.Rev, string(r.State), r.Order, base64.StdEncoding.EncodeToString(r.Sealed), r.Life().Milliseconds(), flag(r.IsOpen())}
}

// SaveAll is Save for rows of one platform that are no codes. Redis waits for the disk with all that
// one connection wrote, so rows that need it wait for it once, and not a second each.
func (s *Redis) SaveAll(ctx context.Context, rows []Row) []error {
	errs := make([]error, len(rows))
	if len(rows) == 0 {
		return errs
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := s.saveAll(ctx, rows, errs); err != nil {
		for i := range errs {
			errs[i] = cmp.Or(errs[i], s.failed("save", err))
		}
	}
	return errs
}

// saveAll fills in the errors of single rows, and returns that of all others.
func (s *Redis) saveAll(ctx context.Context, rows []Row, errs []error) error {
	keys := []string{s.hash(rows[0].Platform), s.codes(rows[0].Platform)}
	conn, err := s.conn(ctx, keys[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	// The first one brings the script, which a pipeline cannot.
	replies := []*redis.Cmd{saveScript.Run(ctx, conn, keys, saveArgs(rows[0])...)}
	for part := range slices.Chunk(rows[1:], perSave) {
		pipe := conn.Pipeline()
		for _, r := range part {
			replies = append(replies, saveScript.EvalSha(ctx, pipe, keys, saveArgs(r)...))
		}
		_, _ = pipe.Exec(ctx) // each reply has its own error
	}
	for i, reply := range replies {
		switch rev, err := reply.Int64(); {
		case err != nil:
			errs[i] = s.failed("save", err)
		case rev < 0:
			errs[i] = ErrConflict
		}
	}
	if !slices.ContainsFunc(rows, Row.NeedsDisk) {
		return nil
	}
	return waitForDisk(ctx, conn)
}

// conn returns a connection to the node that has key.
func (s *Redis) conn(ctx context.Context, key string) (*redis.Conn, error) {
	switch rdb := s.rdb.(type) {
	case *redis.Client:
		return rdb.Conn(), nil
	case *redis.ClusterClient:
		node, err := rdb.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		return node.Conn(), nil
	}
	return nil, fmt.Errorf("a client of type %T is not supported", s.rdb)
}

// errNotDurable is the end of a write that neither a disk nor a replica acknowledged in time.
var errNotDurable = errors.New("neither the append-only file nor a replica acknowledged the write in time")

// waitForDisk returns when what conn wrote would survive a crash of this Redis, as far as Redis can
// say so.
func waitForDisk(ctx context.Context, conn *redis.Conn) error {
	done, err := conn.WaitAOF(ctx, 1, 0, diskTimeout).Result()
	switch {
	case err == nil && len(done) > 0 && done[0] > 0:
		return nil
	case err == nil:
		return errNotDurable
	case !isReply(err):
		return err
	}
	// No append-only file, no such command before Redis 7.2, or no permission.
	info, err := conn.Info(ctx, "replication").Result()
	if err != nil && !isReply(err) {
		return err
	}
	if field(info, "connected_slaves") == "0" || err != nil {
		return nil // there is nothing to wait for: Check has said so
	}
	n, err := conn.Wait(ctx, 1, diskTimeout).Result()
	if err == nil && n == 0 {
		return errNotDurable
	}
	if isReply(err) {
		return nil
	}
	return err
}

// isReply reports whether err is Redis' own answer.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// List implements [Store].
func (s *Redis) List(ctx context.Context, platform, after string, n int) ([]Row, error) {
	keys, cancel := context.WithTimeout(ctx, redisTimeout)
	ids, err := s.rdb.HKeys(keys, s.hash(platform)).Result()
	cancel()
	if err != nil {
		return nil, s.failed("list", err)
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(ids, func(id string) bool { return id <= after || !IsAuthorizer(id) })
	var list []Row
	for part := range slices.Chunk(ids[:min(n, len(ids))], perLoad) {
		args := make([]any, len(part))
		for i, id := range part {
			args[i] = id
		}
		rows, err := s.load(ctx, s.hash(platform), args)
		if err != nil {
			return nil, err
		}
		for i, r := range rows {
			if r.ID = part[i]; r.Rev > 0 {
				list = append(list, r)
			}
		}
	}
	return list, nil
}

// mostCodes bounds what Codes returns.
const mostCodes = 1000

// Codes implements [Store].
func (s *Redis) Codes(ctx context.Context, platform string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	ids, err := s.rdb.ZRange(ctx, s.codes(platform), 0, mostCodes-1).Result()
	if err != nil {
		return nil, s.failed("codes", err)
	}
	return ids, nil
}

// Durability is what a Redis says of whether it would lose records.
type Durability struct {
	// Persists says that it writes an append-only file.
	Persists bool
	// Evicts says that it deletes keys without an expiry when its memory is full.
	Evicts bool
	// Unknown is why it did not say; nil if it did.
	Unknown error
}

// Lasting reports whether records outlive a restart, and a full memory.
func (d Durability) Lasting() bool { return d.Unknown == nil && d.Persists && !d.Evicts }

// String says for people what is wrong and what to do; "" if nothing is.
func (d Durability) String() string {
	switch {
	case d.Unknown != nil:
		return "Redis does not say whether it is durable: its settings appendonly (yes) and maxmemory-policy (not allkeys-...) decide whether the vault's records survive"
	case !d.Persists && d.Evicts:
		return "Redis has no append-only file and evicts keys without an expiry: the vault's records do not survive a restart or a full memory; set appendonly yes, and maxmemory-policy to noeviction or volatile-lru"
	case !d.Persists:
		return "Redis has no append-only file: the vault's records do not survive a restart; set appendonly yes"
	case d.Evicts:
		return "Redis evicts keys without an expiry: the vault's records do not survive a full memory; set maxmemory-policy to noeviction or volatile-lru"
	}
	return ""
}

// Check asks Redis whether it would lose records. The error is that of a Redis that gave no answer.
func (s *Redis) Check(ctx context.Context, platform string) (Durability, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	conn, err := s.conn(ctx, s.hash(platform))
	if err != nil {
		return Durability{}, s.failed("check", err)
	}
	defer conn.Close()
	info, err := conn.Info(ctx, "persistence", "memory").Result()
	if isReply(err) { // of Redis before 7, which takes one section
		info, err = conn.Info(ctx).Result()
	}
	aof, policy := field(info, "aof_enabled"), field(info, "maxmemory_policy")
	switch {
	case isReply(err) || err == nil && aof == "":
		return Durability{Unknown: errors.Join(s.failed("check", err), errors.New("vault: redis: INFO says nothing"))}, nil
	case err != nil:
		return Durability{}, s.failed("check", err)
	}
	return Durability{Persists: aof == "1", Evicts: strings.HasPrefix(policy, "allkeys-")}, nil
}

// field returns a field of what INFO answers.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// RedisCommands are what the user of [Redis] must be permitted, as rules of an ACL without their
// plus, besides the keys "namespace:*". Without the last three it works, and knows less of whether a
// record would survive a crash.
var RedisCommands = [...]string{
	"eval", "evalsha", "time", "get", "set", "hget", "hmget", "hset", "hkeys", "zadd", "zrem", "zrange", "zremrangebyscore",
	"info", "wait", "waitaof",
}
