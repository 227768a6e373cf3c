// Command model checks the refresh protocol and the life of an authorisation with spin:
// exhaustively as they are, then with each guard taken out, which must be found out. README.md says what is modelled. With -trace NAME it prints
// the counterexample of one variant in the words of the design.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

//go:embed refresh.pml
var refresh []byte

//go:embed authorisation.pml
var authorisation []byte

// sources are the models by their files.
var sources = map[string][]byte{"refresh.pml": refresh, "authorisation.pml": authorisation}

//go:embed canon.h
var canon []byte

// limit bounds one variant: many times what the largest needs on two idle cores.
const limit = 10 * time.Minute

func main() {
	trace := flag.String("trace", "", "print the counterexample of this variant")
	only := flag.String("only", "", "check the variants whose name matches this expression")
	flag.Parse()
	ok, err := run(*trace, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "model:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(trace, only string) (bool, error) {
	for tool, pkg := range map[string]string{"spin": "spin", "gcc": "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return false, fmt.Errorf("%s is not installed; on Debian and Ubuntu: apt-get install --no-install-recommends %s", tool, pkg)
		}
	}
	match, err := regexp.Compile(only)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)

	if trace != "" {
		all := slices.Concat(whole, broken, limits, large)
		i := slices.IndexFunc(all, func(v variant) bool { return v.name == trace })
		if i < 0 {
			return false, fmt.Errorf("no variant is called %q", trace)
		}
		steps, err := all[i].counterexample(dir)
		fmt.Print(steps)
		return err == nil, err
	}
	return table(dir, match), nil
}

// table checks the variants, two at a time, and prints a line for each. It reports whether all came
// out as wanted.
func table(dir string, match *regexp.Regexp) bool {
	// The last one takes as long as all others together: it is started first.
	list := slices.DeleteFunc(slices.Concat(whole, broken, limits, large), func(v variant) bool { return !match.MatchString(v.name) })
	results := make([]chan result, len(list))
	queue := make(chan int, len(list))
	for i := range list {
		i = (i + len(list) - 1) % len(list)
		results[i] = make(chan result, 1)
		queue <- i
	}
	close(queue)
	for range 2 {
		go func() {
			for i := range queue {
				results[i] <- list[i].check(dir)
			}
		}()
	}

	ok, seen := true, map[string]bool{}
	fmt.Printf("%-30s %-8s %-55s %9s %6s %8s\n", "variant", "expected", "found", "states", "depth", "seconds")
	for i, v := range list {
		r := <-results[i]
		want, found, verdict := v.want, r.found, ""
		if want == "" {
			want = "nothing"
			for _, s := range r.seen {
				seen[s] = true
			}
		}
		if r.err != nil {
			found = r.err.Error()
		}
		if !r.as(v.want) {
			ok, verdict = false, "  DEVIATES"
		}
		fmt.Printf("%-30s %-8s %-55s %9s %6s %8.1f%s\n", v.name, want, found, r.states, r.depth, r.took.Seconds(), verdict)
	}
	if match.String() != "" {
		return ok
	}
	for _, s := range landmarks() {
		if !seen[s] {
			ok = false
			fmt.Println("never reached, so nothing was shown about it:", s)
		}
	}
	if ok {
		fmt.Printf("all as expected; the whole model came by all of its %d landmarks\n", len(landmarks()))
	}
	return ok
}

var landmark = regexp.MustCompile(`SEEN\(\d+, "([^"]+)"\)`)

// landmarks are the moments that the whole model must come by.
func landmarks() (names []string) {
	for _, m := range landmark.FindAllSubmatch(slices.Concat(refresh, authorisation), -1) {
		if name := string(m[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

type result struct {
	found         string // "nothing", or which invariant failed and how
	states, depth string
	seen          []string
	took          time.Duration
	err           error
}

func (r result) as(want string) bool {
	if want == "" {
		return r.err == nil && r.found == "nothing"
	}
	return r.err == nil && strings.HasPrefix(r.found, want+":")
}

var (
	reached   = regexp.MustCompile(`(?m)^reached: (.+)$`)
	stored    = regexp.MustCompile(`(?m)^\s*(\d+) states, stored`)
	depth     = regexp.MustCompile(`depth reached (\d+)`)
	invariant = regexp.MustCompile(`(?m)^\s*([IP]\d: .+)$`)
	step      = regexp.MustCompile(`(?m)^\s*((?:[A-C]|time|upstream|WeChat|Redis|vault|handler|exchange|[IP]\d): .+)$`)
)

// check looks through all states, or until something is found.
func (v variant) check(dir string) result {
	start := time.Now()
	dir = filepath.Join(dir, v.name)
	out, err := v.pan(dir, []string{"CANON", "COVER"}, []string{"-DCOLLAPSE"})
	r := result{took: time.Since(start), err: err, states: last(stored, out), depth: last(depth, out)}
	for _, m := range reached.FindAllStringSubmatch(out, -1) {
		r.seen = append(r.seen, m[1])
	}
	switch {
	case err != nil:
	case strings.Contains(out, "errors: 0") && !strings.Contains(out, "Search not completed") && !strings.Contains(out, "too small"):
		r.found = "nothing"
	case strings.Contains(out, "assertion violated"):
		replay, _ := command(dir, "./pan", "-r", v.model()+".trail")
		r.found = last(invariant, replay)
	default:
		r.err = errors.New("spin did not finish: " + firstLine(out))
	}
	return r
}

// counterexample returns a shortest one, step by step.
func (v variant) counterexample(dir string) (string, error) {
	dir = filepath.Join(dir, v.name)
	out, err := v.pan(dir, []string{"TRACE"}, []string{"-DBFS", "-DCOLLAPSE"})
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "assertion violated") {
		return "", fmt.Errorf("%s: nothing was found", v.name)
	}
	replay, _ := command(dir, "./pan", "-r", v.model()+".trail")
	var b strings.Builder
	for _, m := range step.FindAllStringSubmatch(replay, -1) {
		fmt.Fprintln(&b, m[1])
	}
	return b.String(), nil
}

// pan makes spin's verifier for v in dir and runs it.
func (v variant) pan(dir string, defines, flags []string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{v.model(): sources[v.model()], "canon.h": canon} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", err
		}
	}
	var args []string
	for _, d := range slices.Concat(v.defines, defines, []string{v.name}) {
		if !strings.Contains(d, "-") { // the whole model's names are not switches
			args = append(args, "-D"+d)
		}
	}
	if out, err := command(dir, "spin", append(args, "-a", v.model())...); err != nil {
		return "", fmt.Errorf("spin: %w: %s", err, firstLine(out))
	}
	args = slices.Concat(args, flags, []string{"-O1", "-w", "-DSAFETY", "-DMEMLIM=4000", "-o", "pan", "pan.c"})
	if out, err := command(dir, "gcc", args...); err != nil {
		return "", fmt.Errorf("gcc: %w: %s", err, firstLine(out))
	}
	return command(dir, "./pan", "-m100000")
}

func command(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

func last(re *regexp.Regexp, s string) string {
	if all := re.FindAllStringSubmatch(s, -1); len(all) > 0 {
		return all[len(all)-1][1]
	}
	return "?"
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
