// Package faults holds the fault suite: what this program promises when its parts die, stall, lie
// or lose data, each promise a [row] with figures, run on real processes under a
// steady load of callers of every kind. There is nothing to import.
//
//	go test ./integration/faults                                  # a few rows, in seconds
//	go test ./integration/faults -timeout 45m -args -faults all   # make faults
//	go test ./integration/faults -v -args -faults 'holder.*'      # rows by name
//
// At the end it prints a table of what was promised and what was seen.
//
// To add a row: write a func(*bench), add a row value with it to one of the lists in rows_test.go,
// and say with its limits what the fault may cost. The bench does the rest: see [bench].
package faults
