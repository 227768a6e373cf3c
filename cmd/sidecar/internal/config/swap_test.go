package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// Kubelet swaps a mounted volume a thousand times, and removes each generation at once, while a
// watcher reads it as fast as it can. It tells of no error, of no half of a secret, and of none
// twice or late.
func TestAThousandSwapsOfTheVolumeAreReadWell(t *testing.T) {
	t.Parallel()
	const swaps = 1000
	dir := t.TempDir()
	folderOf := func(n int) string { return filepath.Join(dir, fmt.Sprintf("..%d", n)) }
	swap := func(n int) {
		if err := os.Mkdir(folderOf(n), 0o700); err != nil {
			t.Fatal(err)
		}
		f := folder{t, folderOf(n)}
		f.write("shop", fmt.Sprint("secret-", n))
		f.write("wxtoken.yaml", strings.ReplaceAll(watchedFile, "DIR", dir))
		link := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(filepath.Base(folderOf(n)), link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(0)
	for _, name := range []string{"shop", "wxtoken.yaml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var looks atomic.Int64 // that have ended
	load := func() (*config.Config, error) {
		defer looks.Add(1)
		return config.Load(config.Overrides{Config: filepath.Join(dir, "wxtoken.yaml")}, getenv(nil))
	}
	current, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	last := fmt.Sprint("secret-", swaps)
	stopped := make(chan string, 1)
	go func() {
		previous, final := -1, ""
		config.Watcher{
			Every:  100 * time.Microsecond,
			Failed: func(err error) { t.Errorf("told of an error: %v", err) },
			Changed: func(c *config.Config) {
				var n int
				final = c.Apps[0].Secret.Reveal()
				if _, err := fmt.Sscanf(final, "secret-%d", &n); err != nil || n <= previous || n > swaps {
					t.Errorf("after generation %d, %q", previous, final)
				}
				if previous = n; final == last {
					cancel()
				}
			},
		}.Run(ctx, current, load)
		stopped <- final
	}()
	for n := 1; n <= swaps; n++ {
		swap(n)
		if err := os.RemoveAll(folderOf(n - 1)); err != nil {
			t.Fatal(err)
		}
		// One look can meet a swap. Two in a row cannot, as long as a whole one lies between two
		// swaps.
		for seen := looks.Load(); looks.Load() < seen+2 && ctx.Err() == nil; {
			time.Sleep(50 * time.Microsecond)
		}
	}
	if final := <-stopped; final != last {
		t.Errorf("the configuration in force at the end has %q", final)
	}
}

// A mounted Secret belongs to root, and another user reads it by the bit for all: no reason to
// warn.
func TestTheModeOfAMountedSecretIsNoReasonToWarn(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	for _, dir := range []string{"..data", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(f.path, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		secret := filepath.Join(f.path, dir, "mounted")
		if err := os.WriteFile(secret, []byte("secret"), 0o444); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(f.path, "in-"+strings.Trim(dir, "."))
		if err := os.Symlink(filepath.Join(dir, "mounted"), path); err != nil {
			t.Fatal(err)
		}
		c, err := f.load("redis: {url: redis://r}\napps: [{id: wx01, secret_file: "+path+"}]\n", nil)
		if err != nil {
			t.Fatal(err)
		}
		if warned, want := len(c.Warnings) > 0, dir != "..data"; warned != want {
			t.Errorf("by way of %s: warnings %q", dir, c.Warnings)
		}
	}
}
