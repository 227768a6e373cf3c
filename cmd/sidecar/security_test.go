package main

import (
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// units are those of the figures in SECURITY.md, times in nanoseconds.
var units = map[string]int64{
	"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20,
	"ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9, "d": 24 * 3600e9,
}

// TestSecurityFiguresAreThoseOfTheCode reads the table of bounds, and the expression in the code
// behind each.
func TestSecurityFiguresAreThoseOfTheCode(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| [^|]+ \\| (\\d+)(?: (\\w+))? \\| `(\\S+) (\\w+)` \\|$")
	_, table, _ := strings.Cut(readRoot(t, "SECURITY.md"), "| what | bound | set in |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Count(table, "\n") + 1
	rows := row.FindAllStringSubmatch(table, -1)
	if len(rows) != lines {
		t.Errorf("%d of the %d rows have the form | what | number and unit | `file name` |", len(rows), lines)
	}
	named := map[string]bool{}
	for _, r := range rows {
		number, unit, file, name := r[1], r[2], r[3], r[4]
		named[file+" "+name] = true
		n, err := strconv.ParseInt(number, 10, 64)
		scale, known := units[unit]
		if err != nil || !known {
			t.Errorf("%s %s: %v, or no unit", number, unit, err)
			continue
		}
		got, err := valueIn(readRoot(t, file), name)
		if err != nil {
			t.Errorf("%s %s: %v", file, name, err)
		} else if got != n*scale {
			t.Errorf("%s %s is %d, and SECURITY.md says %s %s", file, name, got, number, unit)
		}
	}
	// Bounds that a release must not lose from the table.
	for _, must := range []string{"internal/listener/connections.go MaxValueConnections", "internal/listener/connections.go MaxOpsConnections", "internal/listener/connections.go MaxCallbackConnections", "internal/callback/callback.go bodyTime", "internal/listener/connections.go headTime",
		"internal/listener/connections.go ProgressTime", "internal/listener/connections.go IdleTime", "internal/api/api.go MaxInFlight", "internal/proxy/proxy.go MaxKept"} {
		if !named["cmd/sidecar/"+must] {
			t.Errorf("SECURITY.md has no row for %s", must)
		}
	}
}

// valueIn returns the one value that a file gives name, as a constant, a field or a default.
func valueIn(source, name string) (int64, error) {
	set := regexp.MustCompile(`(?m)^\s*(?:const |\w+\.)?`+name+`(?:\s*=\s*|:\s*)([0-9(t][^/,\n]*)`).FindAllStringSubmatch(source, -1)
	if len(set) != 1 {
		return 0, fmt.Errorf("it is set %d times, want once", len(set))
	}
	expression := strings.NewReplacer("time.Millisecond", "1000000", "time.Second", "1000000000", "time.Minute", "60000000000",
		"time.Hour", "3600000000000").Replace(set[0][1])
	v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, expression)
	if err != nil {
		return 0, err
	}
	n, exact := constant.Int64Val(v.Value)
	if !exact {
		return 0, fmt.Errorf("%s is no whole number", expression)
	}
	return n, nil
}

func TestASecurityFigureThatIsWrongIsSeen(t *testing.T) {
	const source = "const one = 5 * time.Second // 6\n\tmost   = 1 << 10\n\to.Max = 8 << 20\n\tHead:    16 << 10,\n\ttwice = 1\n\ttwice = 2\n"
	for name, want := range map[string]int64{"one": 5e9, "most": 1024, "Max": 8 << 20, "Head": 16 << 10, "twice": -1, "none": -1} {
		got, err := valueIn(source, name)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, want)
		}
	}
}
