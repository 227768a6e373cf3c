package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// parrot is a server that knows no command of Redis, and says so as Redis does: with the arguments,
// cut after limit bytes. It returns its address.
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
			waitFor(t, "the refusal in the log", func() bool { return strings.Contains(r.stderr.String(), "unknown command") })
			_, stdout, stderr := r.ask(t, "doctor", "--timeout", "20s")
			if form := secrettest.Find(said+r.stderr.String()+stdout+stderr, password, password[:12], user); form != "" {
				t.Errorf("printed: %s\n%s\n%s\n%s", form, said, &r.stderr, stdout)
			}
		})
	}
}

// get asks one of the sidecar's sockets.
func (r *rig) get(t *testing.T, socket, path string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.dir, socket))
		}}}
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

// What was typed in the wrong place may be a URL with a password, or a secret.
func TestWrongArgumentsAreNotRepeated(t *testing.T) {
	t.Parallel()
	const password = "CANARY-9f8e7d6c5b4a"
	url := "redis://user:" + password + "@redis:6379"
	for _, args := range [][]string{
		{url}, {password}, {"help", url}, {"help", password}, {"serve", url}, {"get", url}, {"get", "a", password}, {"status", password},
		{"--" + url}, {"-" + password}, {"--redis-url" + url}, {"--redis-url:" + password}, {"--redisurl=" + url}, {"--" + password + "=1"},
		{"--dev=" + password}, {"-=" + password}, {"---" + password}, {"get", "--timeout", password}, {"get", "--timeout=" + url},
		{"get", "shop", "--timeout", url}, {"wait", "--app", url}, {"wait", "--app=" + url}, {"wait", "--timeout", url},
		{"--config", url}, {"--config", password}, {"--config=" + url}, {"doctor", "--config", url}, {"status", "--config", url, "--timeout", "1s"},
		{"doctor", "--config", "./" + password}, {"--config", "/etc/x?password=" + password},
		{"status", "--ops-listen", url, "--timeout", "1s"}, {"get", "shop", "--listen", url, "--timeout", "1s"}, {"healthcheck", "--ops-listen", password},
		{"--listen", url}, {"--ops-listen", url}, {"--namespace", url}, {"--log-level", password}, {"--log-format", password}, {"--redis-url", "x" + url},
	} {
		var out syncBuffer
		if code := command(t.Context(), args, noEnv, &out, &out); code == 0 {
			t.Errorf("%q: exit status 0", args)
		}
		if form := secrettest.Find(out.String(), password); form != "" || out.String() == "" {
			t.Errorf("%q: it says %q", args, out.String())
		}
	}
	for _, variable := range []string{"WXTOKEN_CONFIG", "WXTOKEN_LISTEN", "WXTOKEN_OPS_LISTEN", "WXTOKEN_DRAIN", "WXTOKEN_QUIT", "REDIS_URL"} {
		for _, args := range [][]string{{"serve"}, {"status", "--timeout", "1s"}, {"get", "shop", "--timeout", "1s"}} {
			var out syncBuffer
			_ = command(t.Context(), args, func(name string) string { return map[string]string{variable: "x" + url}[name] }, &out, &out)
			if form := secrettest.Find(out.String(), password); form != "" {
				t.Errorf("%q with %s: it says %q", args, variable, out.String())
			}
		}
	}
}

func TestAWrongFlagIsExplained(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`argument 1: unknown flag "--lisen"; did you mean "--listen"?`:                                    {"--lisen", "x"},
		"flag --listen needs a value":                                                                     {"--listen"},
		"argument 2: the value of --timeout does not fit: it takes a duration with its unit, such as 30s": {"get", "--json", "--timeout", "5"},
		"argument 1: the value of --dev does not fit: it takes true or false":                             {"--dev=maybe"},
		"argument 3: unknown flag\n":                                                                      {"get", "shop", "--json", "--X1"},
	} {
		var out syncBuffer
		if code := command(t.Context(), args, noEnv, &out, &out); code != 2 || !strings.Contains(out.String(), want) {
			t.Errorf("%q: %d, it says %q, want %q", args, code, out.String(), want)
		}
	}
}

// upstreamThatGoesOn answers a call, and then sends more on the idle connection.
func upstreamThatGoesOn(t *testing.T, more string) string {
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
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				body := `{"access_token":"CANARY-token-0123456789","expires_in":7200}`
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				time.Sleep(50 * time.Millisecond) // until the client has the answer: without it, the rest is read with it
				_, _ = io.WriteString(conn, more)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// net/http has a line of its own for what comes on an idle connection, which quotes it. What comes
// again and again is said once a minute.
func TestWhatALibraryLogsQuotesNoAnswer(t *testing.T) {
	r := newRig(t)
	upstream := upstreamThatGoesOn(t, `{"errcode":0,"more":"CANARY-answer"}`)
	r.write(t, "config.yaml", strings.NewReplacer("DIR", r.dir, "UPSTREAM", upstream, "REDIS", miniredis.RunT(t).Addr()).Replace(`
listen: unix:DIR/v.sock
ops_listen: unix:DIR/o.sock
bearer_token_file: DIR/bearer
redis: {url: redis://REDIS}
apps: [{id: wx1, alias: shop, secret_file: DIR/secret, api_base: UPSTREAM}]
`))
	r.env = map[string]string{"WXTOKEN_LOG_LEVEL": "debug"}
	r.start(t)
	waitFor(t, "a proxied call", func() bool { return r.get(t, "v.sock", "/proxy/shop/cgi-bin/menu/get") != "" })
	waitFor(t, "the library's message", func() bool { return strings.Contains(r.stderr.String(), libraryMessages[0]) })
	for range 100 {
		stdlog.Printf("http: panic serving 127.0.0.1:1: CANARY-panic")
	}
	stdlog.Printf("anything new: CANARY-news")
	waitFor(t, "what is withheld", func() bool { return strings.Contains(r.stderr.String(), "withheld") })
	if form := secrettest.Find(r.stderr.String(), "CANARY"); form != "" {
		t.Errorf("the log quotes an answer:\n%s", &r.stderr)
	}
	if n := strings.Count(r.stderr.String(), "http: panic serving"); n != 1 {
		t.Errorf("%d lines about the same", n)
	}
}
