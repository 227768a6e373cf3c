package vault_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/wxtoken/sidecar/pkg/vault"
)

// Each row is saved once, and has its own error in its own place.
func TestSaveEach(t *testing.T) {
	rows := make([]vault.Row, 100)
	for i := range rows {
		rows[i].ID = fmt.Sprint(i)
	}
	var mu sync.Mutex
	saved := map[string]int{}
	errs := vault.SaveEach(t.Context(), rows, func(_ context.Context, r vault.Row) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		saved[r.ID]++
		return 1, errors.New(r.ID)
	})
	for i, r := range rows {
		if errs[i] == nil || errs[i].Error() != r.ID || saved[r.ID] != 1 {
			t.Errorf("row %s: saved %d times, %v", r.ID, saved[r.ID], errs[i])
		}
	}
}
