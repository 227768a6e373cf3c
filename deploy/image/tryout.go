package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// tryOut runs the program of this host's platform from the unpacked image: as its user and with
// nothing else in sight where this process is root, else only with its files. Redis and WeChat are
// stand-ins in this process, because the program has none.
func tryOut(ctx context.Context, archive string, src source, stdout io.Writer) error {
	_, images, err := readArchive(archive)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(images, func(i image) bool { return i.arch == runtime.GOARCH })
	if runtime.GOOS != "linux" || at < 0 {
		fmt.Fprintf(stdout, "\nnot run: no image for %s/%s\n", runtime.GOOS, runtime.GOARCH)
		return nil
	}
	dir, err := os.MkdirTemp("", "wxtoken-rootfs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), unpack(images[at].files, dir)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	redis := miniredis.NewMiniRedis()
	if err := redis.StartAddr("127.0.0.1:0"); err != nil {
		return err
	}
	defer redis.Close()
	wechat := httptest.NewServer(http.HandlerFunc(stableToken))
	defer wechat.Close()
	values, ops := freePort(), freePort()
	sidecar := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/"+programPath, args...)
		cmd.Env = []string{"WXTOKEN_LISTEN=" + values, "WXTOKEN_OPS_LISTEN=" + ops, "REDIS_URL=redis://" + redis.Addr(),
			"WECHAT_APPID=" + tryOutApp, "WECHAT_SECRET=try-out-only", "WECHAT_API_BASE=" + wechat.URL, "WXTOKEN_DRAIN=0s"}
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		} else {
			cmd.Path = filepath.Join(dir, programPath)
		}
		return cmd
	}

	about, err := tryCommands(sidecar, src.version)
	if err != nil {
		return err
	}
	ready, err := tryServing(ctx, sidecar, values, ops)
	if err != nil {
		return err
	}
	how := "with its files"
	if os.Geteuid() == 0 {
		how = fmt.Sprintf("with nothing but its files, as uid %d", uid)
	}
	fmt.Fprintf(stdout, "\nrun %s: ready after %d ms, handed out a token, healthy, stopped with status 0\n%s", how, ready.Milliseconds(), about)
	return nil
}

// tryCommands runs the commands that need no running sidecar, and returns what version says.
func tryCommands(sidecar func(...string) *exec.Cmd, version string) (about []byte, err error) {
	about, err = sidecar("version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("version: %w\n%s", err, about)
	}
	if words := strings.Fields(string(about)); len(words) < 2 || words[1] != version {
		return nil, fmt.Errorf("version says\n%s\nthe image is of %s", about, version)
	}
	if out, err := sidecar("healthcheck").CombinedOutput(); err == nil {
		return nil, fmt.Errorf("healthcheck succeeds where nothing runs:\n%s", out)
	}
	if out, err := sidecar("--dev").CombinedOutput(); err == nil || !strings.Contains(string(out), "built without --dev") {
		return nil, fmt.Errorf("--dev is for builds with the tag dev, and the image's program does not say so:\n%s", out)
	}
	return about, nil
}

// tryServing starts the sidecar, takes a token from it and stops it. It returns the time until it
// was ready.
func tryServing(ctx context.Context, sidecar func(...string) *exec.Cmd, values, ops string) (ready time.Duration, err error) {
	var log bytes.Buffer
	serve := sidecar()
	serve.Stdout, serve.Stderr = &log, &log
	serve.Cancel = func() error { return serve.Process.Signal(syscall.SIGTERM) }
	serve.WaitDelay = 10 * time.Second
	began := time.Now()
	if err := serve.Start(); err != nil {
		return 0, err
	}
	err = waitReady(ctx, "http://"+ops+"/readyz")
	ready = time.Since(began)
	if err == nil {
		err = wantBody(ctx, "http://"+values+"/v1/apps/"+tryOutApp+"/token", tryOutToken)
	}
	if err == nil {
		if out, failed := sidecar("healthcheck").CombinedOutput(); failed != nil {
			err = fmt.Errorf("healthcheck: %w\n%s", failed, out)
		}
	}
	_ = serve.Process.Signal(syscall.SIGTERM)
	if err := errors.Join(err, serve.Wait()); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, &log)
	}
	return ready, nil
}

const (
	tryOutApp   = "wx00000000000000aa"
	tryOutToken = "TOKEN-OF-THE-TRY-OUT"
)

// stableToken answers as /cgi-bin/stable_token of WeChat, which is all that the try-out calls.
func stableToken(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/cgi-bin/stable_token" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"expires_in":7200}`, tryOutToken)
}

// wantBody reports an answer that does not hold text.
func wantBody(ctx context.Context, url, text string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(text)) {
		return fmt.Errorf("%s answers %s: %s", url, answer.Status, body)
	}
	return nil
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}

func waitReady(ctx context.Context, url string) error {
	for {
		if r, err := http.Get(url); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// buildAgain builds from a copy of the source at another place, without git, and compares every
// byte.
func buildAgain(ctx context.Context, archive string, src source, o options, stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "wxtoken-again")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	there := src
	there.root = filepath.Join(dir, "somewhere", "else")
	if err := copySource(there.root, src.root); err != nil {
		return err
	}
	env := os.Environ()
	if o.cold {
		env = append(env, "GOCACHE="+filepath.Join(dir, "cache"))
	}
	again := filepath.Join(dir, "again.oci.tar")
	if err := build(ctx, there, o.name, again, env); err != nil {
		return err
	}
	first, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	second, err := os.ReadFile(again)
	if err != nil {
		return err
	}
	if !bytes.Equal(first, second) {
		return fmt.Errorf("another build of the same source differs from %s", archive)
	}
	fmt.Fprintf(stdout, "built again from a copy elsewhere: the same %d bytes\n", len(first))
	return nil
}

// copySource copies what a build can read: no version control, nothing that was built.
func copySource(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case slices.Contains([]string{".git", "bin", "dist"}, rel), d.Name() == "node_modules":
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}
