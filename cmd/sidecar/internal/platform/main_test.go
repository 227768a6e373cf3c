package platform

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
)

// silent is for replicas that are killed: go-redis prints each connection that they cannot make.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	m.Run()
}
