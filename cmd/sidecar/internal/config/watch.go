package config

import (
	"context"
	"os"
	"time"
)

// DefaultEvery is how often a [Watcher] looks.
const DefaultEvery = 5 * time.Second

// maxReported bounds the memory for errors that were reported.
const maxReported = 100

// Watcher loads the configuration again and again and reports each change.
//
// It polls, because a Kubernetes volume changes by the swap of a symlink, and a file may be
// deleted and written anew: whatever happens on the way, what counts is what can be read now. It
// accepts what two looks in a row agree on, a Config or an error. So a file that is read half
// written, or two files of which one is new, do no harm unless they stay like that from one look
// to the next, and then only until the rest is there. A change takes effect after Every to
// 2*Every.
//
// The zero value works and calls no function. The functions are called one at a time, from Run.
type Watcher struct {
	// Every is the time between two looks. 0 or less means DefaultEvery.
	Every time.Duration

	// Now makes the watcher look at once, and accept what it finds: it says that the files are
	// complete. nil never does.
	Now <-chan os.Signal

	// Changed gets a valid configuration that is not Equal to the one before. nil ignores it.
	Changed func(*Config)

	// Failed gets the error of a configuration that is not valid. The one before stays in force.
	// While nothing valid comes, each distinct error is reported once. nil ignores it.
	Failed func(error)

	// Recovered is called when the configuration is valid again after Failed, before Changed, or
	// without it if the configuration is the one that stayed in force. nil ignores it.
	Recovered func()
}

// Run looks until ctx ends, and returns when it has ended and no function is running. current is
// the configuration in force. load is what returned it: [Load] with the same arguments.
func (w Watcher) Run(ctx context.Context, current *Config, load func() (*Config, error)) {
	every := w.Every
	if every <= 0 {
		every = DefaultEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	reported := map[string]bool{}
	last := look{config: current}
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-w.Now:
			asked = true
		}
		if ctx.Err() != nil { // both were ready
			return
		}
		now := lookWith(load)
		isSettled := asked || now.same(last)
		last = now
		switch {
		case !isSettled:
		case now.err != nil:
			w.failed(now.err, reported)
		default:
			if len(reported) > 0 && w.Recovered != nil {
				w.Recovered()
			}
			clear(reported)
			if !now.config.Equal(current) {
				current = now.config
				if w.Changed != nil {
					w.Changed(current)
				}
			}
		}
	}
}

func (w Watcher) failed(err error, reported map[string]bool) {
	if reported[err.Error()] {
		return
	}
	if len(reported) == maxReported {
		clear(reported)
	}
	reported[err.Error()] = true
	if w.Failed != nil {
		w.Failed(err)
	}
}

// look is what one reading found: a config or an error.
type look struct {
	config *Config
	err    error
}

func lookWith(load func() (*Config, error)) look {
	c, err := load()
	return look{c, err}
}

func (l look) same(o look) bool {
	if l.err != nil || o.err != nil {
		return l.err != nil && o.err != nil && l.err.Error() == o.err.Error()
	}
	return l.config.Equal(o.config)
}
