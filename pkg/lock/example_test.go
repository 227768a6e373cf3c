package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
)

// One holder works; its write is fenced by the value of its lease.
func Example() {
	server, err := miniredis.Run() // yours is a real one
	if err != nil {
		panic(err)
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	ctx := context.Background()
	fenced := redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		redis.call('SET', KEYS[2], ARGV[2])
		return 1`)

	lease, err := lock.New(rdb, "report:lock", 10*time.Second).Obtain(ctx)
	if err != nil {
		panic(err)
	}
	_, err = lock.New(rdb, "report:lock", 10*time.Second).Obtain(ctx)
	fmt.Println("another one:", errors.Is(err, lock.ErrHeld))

	work, cancel := context.WithDeadline(ctx, lease.Deadline())
	defer cancel()
	done, err := fenced.Run(work, rdb, []string{"report:lock", "report"}, lease.Value(), "done").Int()
	fmt.Println("written:", done, err)
	fmt.Println("released:", lease.Release(ctx))
	// Output:
	// another one: true
	// written: 1 <nil>
	// released: <nil>
}
