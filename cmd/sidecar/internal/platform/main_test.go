package platform

import (
	"context"
	"os"
	"runtime/debug"
	"testing"

	"github.com/redis/go-redis/v9"
)

// silent is for replicas that are killed: go-redis prints each connection that they cannot make.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // what a cluster in a bubble allocates dies at once
	}
	m.Run()
}
