//go:build !race

package tokencache_test

const raced = false
