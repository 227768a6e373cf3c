package tokencache

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// The text changes, and not what kind of failure it is.
func TestAScrubbedErrorKeepsItsClass(t *testing.T) {
	s := newStore(nil, "ns", "me", secret.New("HUSH-password"))
	failed := s.failed(Key{}, opLoad, answer("NOPERM for HUSH-password"))
	if strings.Contains(failed.Error()+fmt.Sprintf("%+v", failed.Err), "HUSH") {
		t.Errorf("the text is %v", failed)
	}
	var reply redis.Error
	if failed.Class() != StoreNoPerm || !errors.As(failed, &reply) {
		t.Errorf("class %s, want %s", failed.Class(), StoreNoPerm)
	}
}
