// App is what the pods of the node's tests run. With -url it is an app that gets a token: once, or
// with -every again and again until SIGTERM and -linger longer, as an app that drains does. With
// -report it posts a [Report] after its first GET and one at its end. Without -url it only waits
// for SIGTERM: that is the pause container of each pod.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Report is what an app tells the test of its GETs.
type Report struct {
	Pod          string
	Gets, Failed int
	Problem      string        // of the first GET that failed
	First        time.Duration // of the first GET
	Ended        bool
}

type app struct {
	url, report string
	client      *http.Client
	seen        Report
	ready       atomic.Bool
}

func main() {
	a := &app{client: &http.Client{Timeout: 10 * time.Second}}
	flag.StringVar(&a.url, "url", "", "`URL` of the token")
	flag.StringVar(&a.report, "report", "", "`URL` for the reports")
	every := flag.Duration("every", 0, "`time` between two GETs; 0 means one GET")
	linger := flag.Duration("linger", 0, "`time` for which it goes on after SIGTERM")
	listen := flag.String("listen", "", "`address` of /ready, which is 200 once a GET has succeeded")
	flag.Parse()
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if a.url == "" {
		<-terminated.Done()
		return
	}
	a.seen.Pod, _ = os.Hostname()
	if *listen != "" {
		go func() { fmt.Println(http.ListenAndServe(*listen, a)) }()
	}
	began := time.Now()
	a.get()
	a.seen.First = time.Since(began)
	a.tell()
	if *every > 0 {
		a.run(terminated, *every, *linger)
	}
	a.seen.Ended = true
	a.tell()
	fmt.Printf("%d GETs, %d failed %s\n", a.seen.Gets, a.seen.Failed, a.seen.Problem)
	if a.seen.Failed > 0 {
		os.Exit(1)
	}
}

// run repeats the GET until linger after terminated.
func (a *app) run(terminated context.Context, every, linger time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	gone := terminated.Done()
	var end <-chan time.Time
	for {
		select {
		case <-tick.C:
			a.get()
		case <-gone:
			gone, end = nil, time.After(linger)
		case <-end:
			return
		}
	}
}

func (a *app) get() {
	a.seen.Gets++
	if err := a.try(); err != nil {
		a.seen.Failed++
		if a.seen.Problem == "" {
			a.seen.Problem = fmt.Sprintf("GET %d: %v", a.seen.Gets, err)
		}
		return
	}
	a.ready.Store(true)
}

// try gets the token, and keeps it to itself.
func (a *app) try() error {
	resp, err := a.client.Get(a.url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return fmt.Errorf("%s: %w", resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK || body.Token == "" {
		return errors.New(resp.Status)
	}
	return nil
}

func (a *app) tell() {
	if a.report == "" {
		return
	}
	text, err := json.Marshal(a.seen)
	if err == nil {
		var resp *http.Response
		if resp, err = a.client.Post(a.report, "application/json", bytes.NewReader(text)); err == nil {
			err = resp.Body.Close()
		}
	}
	if err != nil {
		fmt.Println(err)
	}
}

func (a *app) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if !a.ready.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}
