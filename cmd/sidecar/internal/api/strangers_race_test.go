//go:build race

package api_test

// strangers is fewer here, because a call costs ten times as much under the race detector.
const strangers = 20_000
