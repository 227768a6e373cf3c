//go:build race

package proxy_test

// kills is fewer here, because under the race detector each refresh costs miniredis 20 ms of Lua.
const kills = 200
