package listener

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallersAreGoneWhenNoneWasConnectedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Callers
		begin := time.Now()
		leave := func(patience, quiet time.Duration) time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			start := time.Now()
			c.Leave(ctx, quiet)
			return time.Since(start)
		}
		if took := leave(time.Minute, time.Second); took != time.Second {
			t.Errorf("without a connection it took %v", took)
		}
		c.Track(nil, http.StateNew)
		c.Track(nil, http.StateActive)
		if took := leave(20*time.Second, time.Second); took != 20*time.Second {
			t.Errorf("with a connection it took %v", took)
		}
		go func() {
			time.Sleep(3 * time.Second)
			c.Track(nil, http.StateNew) // the second one, before the first has gone
			c.Track(nil, http.StateClosed)
			time.Sleep(3 * time.Second)
			c.Track(nil, http.StateHijacked)
		}()
		if took := leave(20*time.Second, time.Second); took != 7*time.Second {
			t.Errorf("after the last one left at 6 s it took %v (started %v)", took, begin)
		}
	})
}
