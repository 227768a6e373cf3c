package config_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// watched is a running Watcher over a real directory, in a bubble. Its log has one line for each
// call, such as "changed: secret" with the secret of the first app.
type watched struct {
	t   *testing.T
	dir string

	mu  sync.Mutex
	log []string
}

func (w *watched) say(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, line)
}

// watch starts with the files in place. Call it in a bubble.
func watch(t *testing.T, dir string) *watched {
	t.Helper()
	w := &watched{t: t, dir: dir}
	load := func() (*config.Config, error) {
		return config.Load(config.Overrides{Config: filepath.Join(dir, "wxtoken.yaml")}, getenv(nil))
	}
	current, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		config.Watcher{
			Changed:   func(c *config.Config) { w.say("changed: " + c.Apps[0].Secret.Reveal()) },
			Failed:    func(err error) { w.say(strings.ReplaceAll(err.Error(), dir, "DIR")) },
			Recovered: func() { w.say("recovered") },
		}.Run(ctx, current, load)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// looks lets the watcher look n times and checks what it said since the last call.
func (w *watched) looks(n int, want ...string) {
	w.t.Helper()
	time.Sleep(time.Duration(n) * config.DefaultEvery)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(want, w.log); diff != "" {
		w.t.Errorf("after %d looks (-want +got):\n%s", n, diff)
	}
	w.log = nil
}

func (w *watched) write(name, content string) {
	w.t.Helper()
	folder{w.t, w.dir}.write(name, strings.ReplaceAll(content, "DIR", w.dir))
}

const watchedFile = "redis: {url: redis://r}\napps: [{id: wx01, secret_file: DIR/shop}]\n"

// inBubble runs a test on a directory with a configuration and its secret, "one". The directory is
// made outside, because it outlives the bubble.
func inBubble(t *testing.T, test func(t *testing.T, w *watched)) {
	t.Helper()
	f := folder{t, t.TempDir()}
	f.write("shop", "one")
	f.write("wxtoken.yaml", strings.ReplaceAll(watchedFile, "DIR", f.path))
	synctest.Test(t, func(t *testing.T) { test(t, watch(t, f.path)) })
}

func TestChangeIsToldOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *watched) {
		w.looks(10)
		w.write("shop", "two")
		w.looks(1) // seen, not believed yet
		w.looks(1, "changed: two")
		w.looks(10)

		// Another order, other comments: the same configuration.
		w.write("wxtoken.yaml", "# new\napps: [{secret_file: DIR/shop, id: wx01}]\nredis: {url: redis://r}\n")
		w.looks(10)

		// There and back between two looks, and between two pairs of them.
		w.write("shop", "three")
		w.write("shop", "two")
		w.looks(2)
		w.write("shop", "three")
		w.looks(1)
		w.write("shop", "two")
		w.looks(10)
	})
}

func TestKubernetesSwapsTheVolume(t *testing.T) {
	// A mounted volume: wxtoken.yaml and shop lead through ..data to a folder with a date, and an
	// update makes a new folder and swaps ..data with one rename.
	dir := t.TempDir()
	generation := func(name, secret string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		folder{t, filepath.Join(dir, name)}.write("shop", secret)
		folder{t, filepath.Join(dir, name)}.write("wxtoken.yaml", strings.ReplaceAll(watchedFile, "DIR", dir))
		link := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	generation("..2026_11_01", "one")
	for _, name := range []string{"shop", "wxtoken.yaml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, dir)
		w.looks(3)
		generation("..2026_11_02", "two")
		if err := os.RemoveAll(filepath.Join(dir, "..2026_11_01")); err != nil {
			t.Fatal(err)
		}
		w.looks(3, "changed: two")
	})
}

func TestTornWritesAreNotBelieved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *watched) {
		// Half a secret is a valid one.
		w.write("shop", "tw")
		w.looks(1)
		w.write("shop", "two")
		w.looks(1)
		w.looks(1, "changed: two")

		// An empty file is an error, for a moment.
		w.write("shop", "")
		w.looks(1)
		w.write("shop", "three")
		w.looks(5, "changed: three")

		// A writer who stops half way is believed in the end, and corrected when he goes on.
		w.write("shop", "fo")
		w.looks(2, "changed: fo")
		w.write("shop", "four")
		w.looks(2, "changed: four")
	})
}

func TestDeletedAndCreatedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *watched) {
		const gone = "config: apps[0].secret_file: DIR/shop: no such file: create it or correct the path"
		if err := os.Remove(filepath.Join(w.dir, "shop")); err != nil {
			t.Fatal(err)
		}
		w.looks(1)
		w.looks(1, gone)
		w.looks(100)

		// The same again: the configuration in force is fine after all.
		w.write("shop", "one")
		w.looks(1)
		w.looks(1, "recovered")
		w.looks(100)

		// Another trouble is told anew, and so is the old one.
		if err := os.Remove(filepath.Join(w.dir, "shop")); err != nil {
			t.Fatal(err)
		}
		w.looks(5, gone)
		w.write("shop", "two")
		w.looks(5, "recovered", "changed: two")
	})
}

func TestEachDistinctErrorIsToldOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *watched) {
		const unknown, empty = `config: x: unknown key (line 1)`, "config: apps[0].secret_file: DIR/shop: empty"
		w.write("wxtoken.yaml", "x: 1\n"+watchedFile)
		w.looks(5, unknown)
		w.write("wxtoken.yaml", watchedFile)
		w.write("shop", "\n")
		w.looks(5, empty)
		w.write("wxtoken.yaml", "x: 1\n"+watchedFile)
		w.write("shop", "one")
		w.looks(5) // known already
		w.write("wxtoken.yaml", watchedFile)
		w.looks(5, "recovered")
		w.write("wxtoken.yaml", "x: 1\n"+watchedFile)
		w.looks(5, unknown)
	})
}

func TestZeroWatcherReportsNothingAndStops(t *testing.T) {
	f := newFolder(t)
	current, err := f.load(rest, nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var looks int
		config.Watcher{}.Run(ctx, current, func() (*config.Config, error) {
			looks++
			env := map[string]string{"WXTOKEN_NAMESPACE": []string{"a", "a", "{", "{"}[looks%4]}
			return f.load(rest, env)
		})
		if !slices.Contains([]int{11, 12}, looks) {
			t.Errorf("%d looks in a minute", looks)
		}
	})
}

// Parsing a file of thousands of apps takes a while, so it is only done when a file has changed.
func TestWhatDidNotChangeIsNotParsedAgain(t *testing.T) {
	f := folder{t, t.TempDir()}
	f.write("shop", "one")
	f.write("wxtoken.yaml", strings.ReplaceAll(watchedFile, "DIR", f.path))
	loads := 0
	load := config.Remember(func() (*config.Config, error) {
		loads++
		return config.Load(config.Overrides{Config: filepath.Join(f.path, "wxtoken.yaml")}, getenv(nil))
	})
	wantLoads := func(want int, secret string) {
		t.Helper()
		for range 3 {
			c, err := load()
			if secret != "" && (err != nil || c.Apps[0].Secret.Reveal() != secret) || secret == "" && err == nil {
				t.Fatalf("got %v, %v", c, err)
			}
		}
		if loads != want {
			t.Errorf("%d loads, want %d", loads, want)
		}
	}
	wantLoads(1, "one")
	f.write("shop", "two")
	wantLoads(2, "two")
	f.write("wxtoken.yaml", "{")
	wantLoads(5, "") // each look at what is not valid
	f.write("wxtoken.yaml", strings.ReplaceAll(watchedFile, "DIR", f.path))
	wantLoads(6, "two")
}
