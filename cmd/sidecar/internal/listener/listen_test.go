package listener

import (
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

func TestAUnixSocketIsForItsGroupAndOutlivesNoProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	_ = dead.Close()

	l, err := Open("unix:"+path, config.DefaultSocketMode)
	if err != nil {
		t.Fatalf("a socket without a listener: %v", err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	go func() { // so that a connection is answered
		for {
			if conn, err := l.Accept(); err != nil {
				return
			} else {
				_ = conn.Close()
			}
		}
	}()
	if _, err := Open("unix:"+path, config.DefaultSocketMode); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a socket with a listener: %v", err)
	}
}

// Between the creation of a socket and a chmod any user could connect.
func TestAUnixSocketHasItsModeFromTheFirstMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		done, looked := make(chan struct{}), make(chan map[fs.FileMode]bool)
		go func() {
			seen := map[fs.FileMode]bool{}
			for {
				if info, err := os.Lstat(path); err == nil {
					seen[info.Mode().Perm()] = true
				}
				select {
				case <-done:
					looked <- seen
					return
				default:
				}
			}
		}()
		for range 300 {
			l, err := Open("unix:"+path, mode)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != mode {
				t.Fatalf("%v, %v, want %v", info, err, mode)
			}
			_ = l.Close()
		}
		close(done)
		seen := <-looked
		delete(seen, mode)
		if len(seen) > 0 {
			t.Errorf("want the mode %v, and saw %v, too", mode, seen)
		}
	}
}

func TestAFileThatIsNoSocketIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("unix:"+path, config.DefaultSocketMode); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file: %q, %v", text, err)
	}
}

func TestAnAddressInUseSaysWhatToDo(t *testing.T) {
	l, err := Open("127.0.0.1:0", config.DefaultSocketMode)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(l.Addr().String(), config.DefaultSocketMode); err == nil || !strings.Contains(err.Error(), "choose another address") {
		t.Errorf("got %v", err)
	}
}

// An answer that has begun is finished after the program was asked to stop.
func TestServeFinishesWhatItHasBegun(t *testing.T) {
	l, err := Open("127.0.0.1:0", config.DefaultSocketMode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun, finish := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-finish
			_, _ = io.WriteString(w, "all of it")
		}), Options{Connections: 8})
	}()
	go func() {
		<-begun
		cancel()
		close(finish)
	}()
	r, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "all of it" {
		t.Errorf("got %q, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}
