package tokencache

import (
	"fmt"
	"sync"
	"testing"
)

// Two reloads at once make one state of a key: what one of them learns is not lost.
func TestConcurrentSetsShareTheStateOfAKey(t *testing.T) {
	t.Parallel()
	var creds []Credential
	for i := range 2000 {
		creds = append(creds, Credential{Key: Key{fmt.Sprintf("app-%d", i), "access_token"}, Source: unasked{}})
	}
	for range 5 {
		c := New(nil, Options{})
		defer c.Close()
		var states [2]*slot
		var wg sync.WaitGroup
		for i := range states {
			wg.Go(func() {
				if err := c.Set(creds...); err != nil {
					t.Error(err)
				}
				states[i] = c.lookup(creds[0].Key)
			})
		}
		wg.Wait()
		if states[0] != states[1] || states[0] != c.lookup(creds[0].Key) {
			t.Fatal("two states of one key")
		}
	}
}
