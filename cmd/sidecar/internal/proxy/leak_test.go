package proxy_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the tests: neither of the proxy, nor of what it called.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
