package k8s

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is the path of the built program.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "wxtoken-manifests-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "sidecar")
		build := exec.Command("go", "build", "-tags", "dev", "-o", program, "./cmd/sidecar")
		build.Dir = filepath.Join("..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// process is a running program.
type process struct {
	values, ops string // host:port
	callback    string // the same, if it listens there
	out, log    *output
}

type output struct {
	mu    sync.Mutex
	lines []string
}

func (l *output) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(text))
	return len(text), nil
}

func (l *output) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// start runs the program on ports of its own until the test ends. An exit before it serves is an
// error that holds the exit status and what it said.
func start(t *testing.T, env []string, args ...string) (*process, error) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "WXTOKEN_LOG_FORMAT=json"}, env...)
	p := &process{out: &output{}, log: &output{}}
	cmd.Stdout = p.out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var entry struct {
				Msg       string
				Listen    string
				OpsListen string `json:"ops_listen"`
				Callback  string `json:"callback_listen"`
			}
			_, _ = p.log.Write(lines.Bytes())
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "started" {
				p.values, p.ops, p.callback = entry.Listen, entry.OpsListen, entry.Callback
				close(up)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-done
		_ = cmd.Wait()
		killed.Stop()
	})
	select {
	case <-up:
		return p, nil
	case <-done:
		err := cmd.Wait()
		return nil, fmt.Errorf("%w: %s", err, p.log)
	case <-time.After(patience):
		return nil, fmt.Errorf("it neither serves nor ends: %s", p.log)
	}
}

// refused reports whether err says that the program did not take its configuration, and ended with
// status 2.
func refused(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == 2
}

func do(t *testing.T, method, url string, body string, header ...string) (status int, answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// patience is how long a test waits for what must happen, however busy the machine is.
const patience = 5 * time.Minute

// eventually tries until ok, for at most patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}
