// Command shape measures how readable the code is, and prints each figure beside its goal:
//
//	go run ./integration/shape [-check]
//
// It reads the sources as text and as syntax. With -check it exits with 1 if a goal is missed.
package main

import (
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
)

// figure is one row of the table.
type figure struct {
	what string
	is   float64
	goal string // as printed
	met  bool
	note string // which one is worst, or why a goal is missed
}

func atMost(what string, is, goal float64, note string) figure {
	return figure{what, is, fmt.Sprintf("<= %g", goal), is <= goal, note}
}

func atLeast(what string, is, goal float64, note string) figure {
	return figure{what, is, fmt.Sprintf(">= %g", goal), is >= goal, note}
}

func main() {
	check := flag.Bool("check", false, "exit with 1 if a goal is missed")
	flag.Parse()
	tree, err := read(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "shape:", err)
		os.Exit(1)
	}
	missed := 0
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tIS\tGOAL\t\tNOTE")
	for _, f := range tree.figures() {
		verdict := "met"
		if !f.met {
			verdict = "MISSED"
			missed++
		}
		fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\n", f.what, f.is, f.goal, verdict, f.note)
	}
	_ = w.Flush()
	if *check && missed > 0 {
		fmt.Fprintf(os.Stderr, "shape: %d goals are missed\n", missed)
		os.Exit(1)
	}
}
