package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// parrot is a server that knows no command of Redis, and says so as Redis does: with the arguments, cut
// after limit bytes. It returns its address.
func parrot(t *testing.T, limit int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					args, err := readCommand(in)
					if err != nil {
						return
					}
					said := "'" + strings.Join(args[1:], "' '") + "' "
					if _, err := fmt.Fprintf(conn, "-ERR unknown command '%s', with args beginning with: %s\r\n", args[0], said[:min(limit, len(said))]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) ([]string, error) {
	number := func(prefix string) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), prefix))
	}
	n, err := number("*")
	if err != nil || n < 1 {
		return nil, fmt.Errorf("no command: %w", err)
	}
	args := make([]string, n)
	for i := range args {
		size, err := number("$")
		if err != nil {
			return nil, err
		}
		body := make([]byte, size+2)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, err
		}
		args[i] = string(body[:size])
	}
	return args, nil
}

func TestNoPasswordOfRedisIsPrintedWhateverTheServerRepeats(t *testing.T) {
	t.Parallel()
	const user, password = "CANARYuser", "CANARY+redis/password-that-is-rather-long-as-generated-ones-are-0123456789-0123456789-0123456789-0123456789-0123456789"
	for name, c := range map[string]struct {
		limit int
		form  string // of the URL
	}{
		"whole":         {1 << 10, "redis://USER:PASSWORD@ADDR"},
		"as Redis cuts": {128, "redis://USER:PASSWORD@ADDR"},
		"no user":       {128, "redis://:PASSWORD@ADDR"},
		"cluster":       {128, "redis://USER:PASSWORD@ADDR?addr=ADDR"},
		"sentinel":      {128, "redis://USER:PASSWORD@ADDR?master_name=m&username=USER&password=PASSWORD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			redisURL := strings.NewReplacer("USER", user, "PASSWORD", url.QueryEscape(password), "ADDR", parrot(t, c.limit)).Replace(c.form)
			r.env = map[string]string{"REDIS_URL": redisURL, "WXTOKEN_LOG_LEVEL": "debug"}
			r.start(t)
			var said string
			waitFor(t, "the refusal in /status", func() bool {
				said = r.get(t, "o.sock", "/status")
				return strings.Contains(said, "unknown command")
			})
			said += r.get(t, "o.sock", "/status?format=html") + r.get(t, "v.sock", "/v1/apps/shop/token")
			waitFor(t, "the refusal in the log", func() bool { return strings.Contains(r.log.String(), "unknown command") })
			_, stdout, stderr := r.ask(t, "doctor", "--timeout", "20s")
			if form := secrettest.Find(said+r.log.String()+stdout+stderr, password, password[:12], user); form != "" {
				t.Errorf("printed: %s\n%s\n%s\n%s", form, said, &r.log, stdout)
			}
		})
	}
}

// get asks one of the sidecar's sockets.
func (r *rig) get(t *testing.T, socket, path string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", filepath.Join(r.dir, socket)) }}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+canaryBearer)
	answer, err := client.Do(request)
	if err != nil {
		return "" // it is not there yet
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return string(body)
}
