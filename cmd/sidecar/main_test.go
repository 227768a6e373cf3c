package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func noEnv(string) string { return "" }

// The first thing that a newcomer does: start it, and paste what it prints.
func TestDevModePrintsCommandsThatWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	p := begin(t, noEnv, "serve", "--dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	waitFor(t, "it prints what to try", func() bool { return strings.Contains(p.stdout.String(), "/metrics") })
	if strings.Contains(p.stderr.String(), "refresh failed") {
		t.Errorf("a refresh failed:\n%s", &p.stderr)
	}
	_, noRedisCLI := exec.LookPath("redis-cli")
	var script []string
	for line := range strings.Lines(p.stdout.String()) {
		command, is := strings.CutPrefix(strings.TrimRight(line, "\n"), "  ")
		if !is || strings.HasPrefix(command, "#") || strings.HasPrefix(command, "redis-cli") && noRedisCLI != nil {
			continue
		}
		script = append(script, strings.ReplaceAll(command, "curl -s", "curl -sS --fail-with-body --retry 20 --retry-delay 1")+"; echo")
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", strings.Join(script, "\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, strings.Join(script, "\n"), out)
	}
	for _, want := range []string{`"access_token":"`, `"ok":true`, `"ip_list":[`, "wxtoken_refreshes_total"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the printed commands say nothing of %s:\n%s", want, out)
		}
	}
	tokens := map[string]bool{}
	for _, part := range strings.Split(string(out), `"access_token":"`)[1:] {
		token, _, _ := strings.Cut(part, `"`)
		tokens[token] = true
		if strings.Contains(p.stderr.String(), token) {
			t.Error("the log holds a token")
		}
	}
	if len(tokens) != 3 {
		t.Errorf("%d different tokens, want the first, the one after the report, and that of the account:\n%s", len(tokens), out)
	}
	p.stop()
	p.wantExit()
}

func TestWrongUseIsExplainedWithExitStatus2(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "WECHAT_APPID"},
		{[]string{"--config", "/nowhere.yaml"}, "/nowhere.yaml"},
	} {
		var stdout, stderr bytes.Buffer
		if code := command(t.Context(), test.args, noEnv, &stdout, &stderr); code != 2 {
			t.Errorf("%q: exit status %d, want 2", test.args, code)
		}
		if !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: no word about %s:\n%s", test.args, test.want, &stderr)
		}
	}
}

func TestARunningSidecarGivesBackWhatItsStartNeeded(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells which pages they are")
	}
	p := start(t, map[string]string{"WXTOKEN_LOG_LEVEL": "debug"})
	waitFor(t, "pages are given back", func() bool {
		return regexp.MustCompile(`"pages of the program given back","bytes":[1-9]\d{5,}}`).MatchString(p.stderr.String())
	})
}

// The percentage is the process': other tests of this package may run a sidecar, too, but none of
// them sets one as large.
func TestARunningSidecarPacesItsCollector(t *testing.T) {
	t.Setenv("GOGC", "")
	const untouched = 1000
	defer debug.SetGCPercent(debug.SetGCPercent(untouched))
	p := start(t, map[string]string{})
	waitFor(t, "the percentage is that of a sidecar", func() bool {
		_, _, metrics := ask(t, "GET", p.ops+"/metrics", "")
		return !strings.Contains(metrics, fmt.Sprintf("\ngo_gc_gogc_percent %d\n", untouched)) && strings.Contains(metrics, "\ngo_gc_gogc_percent ")
	})
}
