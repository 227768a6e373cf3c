package tokencache_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"
)

// recorder keeps what was done to the credential in Redis, for a check that it was one register
// with a fence. Cached reads are no part of that; world.late has their model. The zero recorder is
// ready for use.
//
// The operations are begins, which say that their lease holds the lock at that moment; commits;
// direct reads; and what the history does to Redis itself, a failover with what it brings back
// included. Each has an interval, from before it was sent until its reply was there. The replies of
// some commits are lost: those may happen at any later time, or never. So may ends without a value.
type recorder struct {
	mu      sync.Mutex
	clock   int64 // counts the ends of the intervals: finer than time, which stops in a bubble
	ops     []porcupine.Operation
	commits []committed
	reads   map[string]bool
	news    bool   // there was an operation since the last read
	value   string // what that read
}

type committed struct {
	value string
	at    time.Time
}

type registerState struct{ holder, value string }

// registerInput is an operation. state is for a "set".
type registerInput struct {
	op, lease, value string
	ended            bool // the right to ask has ended
	state            registerState
}

const (
	opBegin  = "begin"
	opCommit = "commit"
	opMaybe  = "maybe commit" // its reply was lost, or a repeat of it was refused
	opEnd    = "finish"
	opEnds   = "maybe finish"
	opRead   = "read"
	opSet    = "set"          // by the history
	opRevoke = "maybe revoke" // its call failed
	opUnlock = "unlock"
	opDelete = "delete"
)

// register is what Redis should be: only the lease that began last can commit or finish, and a
// reader gets what was committed last.
var register = porcupine.Model{
	Init: func() any { return registerState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, in := state.(registerState), input.(registerInput)
		switch in.op {
		case opBegin:
			return true, registerState{in.lease, s.value}
		case opCommit:
			return s.holder == in.lease, registerState{"", in.value}
		case opMaybe:
			if s.holder == in.lease {
				return true, registerState{"", in.value}
			}
			return true, s
		case opEnd, opEnds:
			if s.holder != in.lease {
				return in.op == opEnds, s
			}
			if in.ended {
				return true, registerState{} // and the value with it
			}
			return true, registerState{"", s.value}
		case opRead:
			return s.value == in.value, s
		case opUnlock:
			return true, registerState{"", s.value}
		case opDelete:
			return true, registerState{s.holder, ""}
		default:
			return true, in.state
		}
	},
}

func (r *recorder) tick() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	return r.clock
}

// add records what was called at call and has just returned.
func (r *recorder) add(call int64, in registerInput) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	op := porcupine.Operation{Input: in, Call: call, Return: r.clock}
	if in.op == opMaybe || in.op == opEnds || in.op == opRevoke {
		op.Return = math.MaxInt64
	}
	r.ops = append(r.ops, op)
	r.news = r.news || in.op != opRead
}

// replaced returns when a value that was committed before was last replaced by another, the zero
// time if it was not.
func (r *recorder) replaced(value string) (at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.commits) - 1; i >= 0 && r.commits[i].value != value; i-- {
		at = r.commits[i].at
		if i == 0 {
			return time.Time{} // never committed: a replica keeps it for itself
		}
	}
	return at
}

// read records a direct read, unless it can show nothing new. A missing key says nothing: values
// run out.
func (r *recorder) read(get func() string) {
	call := r.tick()
	value := get()
	r.mu.Lock()
	dull := value == "" || value == r.value && !r.news
	if r.reads == nil {
		r.reads = map[string]bool{}
	}
	r.value, r.news, r.reads[value] = value, false, true
	r.mu.Unlock()
	if !dull {
		r.add(call, registerInput{op: opRead, value: value})
	}
}

func (r *recorder) lose(what string, do func()) {
	call := r.tick()
	do()
	switch what {
	case everything:
		r.add(call, registerInput{op: opSet})
	case valueKey:
		r.add(call, registerInput{op: opDelete})
	case lockKey:
		r.add(call, registerInput{op: opUnlock})
	}
}

// hook records what a replica does.
func (r *recorder) hook(string) redis.Hook { return recordHook{r} }

type recordHook struct{ *recorder }

func (recordHook) DialHook(next redis.DialHook) redis.DialHook { return next }
func (recordHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h recordHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		name := scriptOf(cmd.Args())
		if name != "begin" && name != "commit" && name != "finish" && name != "revoke" {
			return next(ctx, cmd)
		}
		call := h.tick()
		err := next(ctx, cmd)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			return err
		}
		reply, _ := cmd.(*redis.Cmd).Result()
		if name == "revoke" {
			in := registerInput{op: opSet}
			if err != nil {
				in.op = opRevoke
			}
			h.add(call, in)
			return err
		}
		argument := func(name string) string {
			list := cmd.Args()[3+5:] // after the script, the number of keys and the keys: names and values in turn
			return list[slices.Index(list, any(name))+1].(string)
		}
		lease := argument("lease")
		if name == "begin" {
			if parts, ok := reply.([]any); ok && err == nil && parts[0] != "lost" {
				h.add(call, registerInput{op: opBegin, lease: lease})
			}
			return err
		}
		if name == "finish" {
			in := registerInput{op: opEnds, lease: lease, ended: argument("ended") == "1"}
			if parts, ok := reply.([]any); ok && err == nil && parts[0] == int64(1) {
				in.op = opEnd
			}
			h.add(call, in)
			return err
		}
		in := registerInput{op: opCommit, lease: lease, value: argument("value")}
		_, ok := reply.([]any)
		if !ok {
			in.op = opMaybe
		}
		h.add(call, in)
		if ok {
			h.mu.Lock()
			h.commits = append(h.commits, committed{in.value, time.Now()})
			h.mu.Unlock()
		}
		return err
	}
}

// scriptOf returns which script a command runs, "" for none.
func scriptOf(args []any) string {
	if len(args) < 3 {
		return ""
	}
	body, _ := args[1].(string)
	switch args[0] {
	case "evalsha":
		return scripts[body]
	case "eval":
		sum := sha1.Sum([]byte(body))
		return scripts[hex.EncodeToString(sum[:])]
	}
	return ""
}

// failover records what a failover brings back.
func (w *world) failover() {
	w.losing.Lock()
	defer w.losing.Unlock()
	call := w.record.tick()
	var back registerState
	secondary := w.Redis.DB(1)
	back.value, _ = secondary.Get(w.ValueKey())
	back.holder, _ = secondary.Get(w.ValueKey() + lockKey)
	w.Failover()
	w.record.add(call, registerInput{op: opSet, state: back})
	w.noteLoss(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rolled = time.Now()
}

// committed reports whether a commit of value is known to have succeeded.
func (r *recorder) committed(value string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.commits, func(c committed) bool { return c.value == value })
}

func (r *recorder) describe() string {
	s := ""
	for _, op := range r.ops {
		in := op.Input.(registerInput)
		s += fmt.Sprintf("\n  [%d, %d] %s lease=%.4s value=%s", op.Call, op.Return, in.op, in.lease, in.value)
		if in.op == opSet {
			s += fmt.Sprintf(" %+v", in.state)
		}
	}
	return s
}

// checkRegister is the linearizability of what happened in Redis.
func (w *world) checkRegister() {
	r := &w.record
	r.mu.Lock()
	defer r.mu.Unlock()
	if porcupine.CheckOperationsTimeout(register, r.ops, 5*time.Second) == porcupine.Illegal {
		w.fail("I2: Redis is no register with a fence", "%s", r.describe())
	}
}
