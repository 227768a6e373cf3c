package integration

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// tell runs a command beside the sidecar p, with its configuration.
func (p *process) tell(args ...string) (output string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	for _, e := range p.cmd.Env {
		if !strings.HasPrefix(e, "WXTOKEN_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "WXTOKEN_LISTEN="+p.values, "WXTOKEN_OPS_LISTEN="+p.ops)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		p.t.Fatalf("%q: %v", args, err)
	} else if ok {
		code = exit.ExitCode()
	}
	if args[0] != "get" {
		_, _ = p.bodies.Write(out)
	}
	return string(out), code
}

// An image can begin with wait: the program after -- takes its place, and its exit status.
func TestWaitBecomesTheProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "redis://"+startRedis(t).addr)
	p := c.add(1)[0]
	out, code := p.tell("wait", "--timeout", "20s", "--", "sh", "-c", `echo "mine is $0 $1"; sidecar=$(readlink /proc/$$/exe); echo ${sidecar##*/}; exit 7`, "one", "--two")
	if code != 7 || !strings.Contains(out, "mine is one --two\n") || strings.Contains(out, "\nsidecar\n") {
		t.Errorf("exit status %d and\n%s", code, out)
	}
	if out, code := p.tell("wait", "--", "/nowhere/program"); code != 1 || !strings.Contains(out, "/nowhere/program") {
		t.Errorf("a program that does not exist: exit status %d and\n%s", code, out)
	}
}

// A doctor may be called to a patient that works, on the endpoint where every fetch ends the token.
func TestDoctorDisturbsNothingThatRuns(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	all := c.add(2)
	c.wantAllWork(everywhere(t, all, 1, (*process).token))
	before, fetches := dump(t, server.client()), c.upstream.Calls(appID).Fetches()
	out, code := all[0].tell("doctor", "--fetch")
	if code != 0 || !strings.Contains(out, "WeChat accepts the token that stands in Redis") {
		t.Errorf("exit status %d and\n%s", code, out)
	}
	c.wantFetches(fetches)
	if after := dump(t, server.client()); after != before {
		t.Errorf("Redis held\n%s\nand then\n%s", before, after)
	}
	if got := c.metric("wxtoken_redis_errors_total"); got != 0 {
		t.Errorf("%v Redis errors", got)
	}
}

// dump returns every key with what it holds.
func dump(t *testing.T, rdb *redis.Client) string {
	var b strings.Builder
	keys, err := rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	for _, k := range keys {
		value, err := rdb.Dump(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %q\n", k, value)
	}
	return b.String()
}
