//go:build !race

package api_test

// strangers is how many requests TestAMillionRequestsForUnknownThingsLeaveNothingBehind makes.
const strangers = 1_000_000
