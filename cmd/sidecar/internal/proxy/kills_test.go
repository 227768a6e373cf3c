//go:build !race

package proxy_test

// kills is how often TestKillsAreNotSeen kills the token.
const kills = 1000
