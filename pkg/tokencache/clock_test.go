package tokencache

import (
	"testing"
	"time"
)

// A clock can be stepped, and a host suspended; each moves the wall clock alone.
func TestDriftTellsAStepFromTimeThatPasses(t *testing.T) {
	start := now()
	later := instant{start.mono + 10*time.Second, start.wall + 10*time.Second}
	if d := later.drift(start); d != 0 {
		t.Errorf("%v after 10 s", d)
	}
	later.wall += time.Hour
	if d := later.drift(start); d != time.Hour {
		t.Errorf("%v after a step forward", d)
	}
	later.wall = start.wall - time.Hour
	if d := later.drift(start); d != -time.Hour-10*time.Second {
		t.Errorf("%v after a step back", d)
	}
}
