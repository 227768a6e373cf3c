package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// Invocation is one call of a command.
type Invocation struct {
	Getenv         func(string) string
	Stdout, Stderr io.Writer

	commands []Command
	command  Command
	args     []string // of the command, without its own name
}

// Flags returns an empty set of flags that says nothing by itself: parse does.
func (c *Invocation) Flags() *flag.FlagSet {
	set := flag.NewFlagSet(c.command.Name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	return set
}

// Parse reads the flags, wherever they stand among the other arguments, which it returns, at most
// so many. If done, the command is over with that exit status.
func (c *Invocation) Parse(set *flag.FlagSet, atMost int) (rest []string, status int, done bool) {
	for args := c.args; ; {
		switch err := set.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			c.printHelp(set)
			return nil, Done, true
		case err != nil:
			return nil, c.Misused(wrongFlag(set, err, args[:len(args)-set.NArg()], len(c.args)-len(args))), true
		}
		if set.NArg() == 0 {
			break
		}
		rest, args = append(rest, set.Arg(0)), set.Args()[1:]
	}
	if len(rest) > atMost {
		// Not repeated further: it may be what a flag forgot to take, such as a URL with a
		// password.
		return nil, c.Misused(fmt.Errorf("%d arguments, and it takes at most %d", len(rest), atMost)), true
	}
	return rest, 0, false
}

// wrongFlag says what package flag found wrong after it had read some arguments, with before others
// in front of them. Of its error only the kind is used: its text repeats the argument, which may be
// a URL with a password. What is repeated is the name of a flag that there is, or a plain word.
func wrongFlag(set *flag.FlagSet, err error, read []string, before int) error {
	nameOf := func(i int) string {
		name, _, _ := strings.Cut(strings.TrimLeft(read[i], "-"), "=")
		return name
	}
	last := len(read) - 1
	switch text := err.Error(); {
	case strings.HasPrefix(text, "bad flag syntax"):
		return fmt.Errorf("argument %d is no flag", before+len(read)+1)
	case strings.HasPrefix(text, "flag provided but not defined"):
		var known []string
		set.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		return fmt.Errorf("argument %d: unknown flag%s", before+len(read), mistyped("--", nameOf(last), known))
	case strings.HasPrefix(text, "flag needs an argument"):
		return fmt.Errorf("flag --%s needs a value", nameOf(last))
	}
	if !strings.HasPrefix(read[last], "-") || set.Lookup(nameOf(last)) == nil {
		last = max(0, last-1) // the flag comes before its value
	}
	f := set.Lookup(nameOf(last))
	if f == nil {
		return fmt.Errorf("argument %d does not fit", before+len(read))
	}
	return fmt.Errorf("argument %d: the value of --%s does not fit: it takes %s", before+last+1, f.Name, flagTakes(f))
}

// plainWord is what a command or a flag looks like. A URL or a generated password does not.
var plainWord = regexp.MustCompile(`^[a-z][a-z-]{1,14}$`)

// mistyped repeats a name if it is a plain word, and says which known one was probably meant.
func mistyped(prefix, name string, known []string) (text string) {
	if !plainWord.MatchString(name) {
		return ""
	}
	text = fmt.Sprintf(" %q", prefix+name)
	if near := config.Nearest(name, known); near != "" {
		text += fmt.Sprintf("; did you mean %q?", prefix+near)
	}
	return text
}

// flagTakes says what fits a flag.
func flagTakes(f *flag.Flag) string {
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return "true or false"
	}
	if f.Name == "timeout" {
		return "a duration with its unit, such as 30s"
	}
	_, usage := flag.UnquoteUsage(f)
	return usage
}

// Misused says what is wrong with the arguments.
func (c *Invocation) Misused(err error) int {
	fmt.Fprintf(c.Stderr, "sidecar %s: %v\nsee: sidecar %s --help\n", c.command.Name, err, c.command.Name)
	return Misuse
}

// Failed says why the command could not do what it was asked to.
func (c *Invocation) Failed(format string, args ...any) int {
	fmt.Fprintf(c.Stderr, "sidecar %s: %s\n", c.command.Name, fmt.Sprintf(format, args...))
	return Failed
}

func configFlag(set *flag.FlagSet, o *config.Overrides) {
	set.StringVar(&o.Config, "config", "", "YAML `file` with many apps (WXTOKEN_CONFIG)")
}

func listenFlag(set *flag.FlagSet, o *config.Overrides) {
	set.StringVar(&o.Listen, "listen", "", "`address` that hands out values: a loopback host:port or unix:/path (WXTOKEN_LISTEN, default "+config.DefaultListen+")")
}

func opsListenFlag(set *flag.FlagSet, o *config.Overrides) {
	set.StringVar(&o.OpsListen, "ops-listen", "", "`address` of health and metrics (WXTOKEN_OPS_LISTEN, default "+config.DefaultOpsListen+")")
}

// AllFlags adds the flags of the commands that read the whole configuration.
func AllFlags(set *flag.FlagSet, o *config.Overrides) {
	configFlag(set, o)
	listenFlag(set, o)
	opsListenFlag(set, o)
	set.StringVar(&o.Namespace, "namespace", "", "first `part` of every Redis key (WXTOKEN_NAMESPACE, default "+config.DefaultNamespace+")")
	set.StringVar(&o.RedisURL, "redis-url", "", "`URL` of Redis, without a password: the environment hides that better (REDIS_URL)")
	set.StringVar(&o.LogLevel, "log-level", "", "debug, info, warn or error (WXTOKEN_LOG_LEVEL, default "+config.DefaultLogLevel+")")
	set.StringVar(&o.LogFormat, "log-format", "", "json, console or auto (WXTOKEN_LOG_FORMAT, default "+config.DefaultLogFormat+")")
}

func isHelp(arg string) bool {
	switch strings.TrimLeft(arg, "-") {
	case "h", "help":
		return strings.HasPrefix(arg, "-")
	}
	return false
}
