package tokencache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// Rehearse runs on Redis what a [Cache] with this namespace runs for k: the same scripts, sent in
// the same ways. It only reads the keys of k. It writes to keys of its own in the same slot, for
// the time of the call, and publishes events that every cache ignores.
//
// read is of reading the credential; write is of two whole refreshes of one that no program uses,
// and is not tried without read. Each is the *[StoreError] of what failed first. With an ACL that
// permits no keys but those of k, writing fails.
func Rehearse(ctx context.Context, rdb redis.UniversalClient, namespace string, k Key) (read, write error) {
	s := newStore(rdb, namespace, "rehearsal")
	for range 2 { // the second time Redis has the script
		if _, errs := s.loadAll(ctx, []*Credential{{Key: k}}, false); errs[0] != nil {
			return errs[0], nil
		}
	}
	s.scratch = true
	own := &Credential{Key: Key{App: k.App, Kind: "rehearsal-" + rand.Text()[:8]}, Overlap: 5 * time.Minute}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		_ = rdb.Del(ctx, s.keys(own.Key)...).Err() // what cannot be deleted ends by itself
	}()
	return nil, s.rehearse(ctx, own)
}

// rehearse commits a value, then begins to replace it and takes the cut back.
func (s *store) rehearse(ctx context.Context, c *Credential) error {
	for _, committed := range []bool{false, true} {
		lease, err := s.obtain(ctx, c.Key, lock.New(s.rdb, s.lockKey(c.Key), leaseTTL))
		if err != nil {
			return err
		}
		want := int64(0)
		if committed {
			st, err := s.load(ctx, c)
			if err != nil {
				return err
			}
			want = st.version + 1
		}
		b, err := s.begin(ctx, c, beginRequest{lease: lease.Value(), reason: ReasonMissing, version: want, known: unknownLife})
		switch {
		case err != nil:
			return err
		case b.decision != decisionGo:
			return &StoreError{Op: "begin", Err: fmt.Errorf("%w: %s", errReply, b.decision)}
		case committed:
			return s.finish(ctx, c, lease.Value(), outcome{reason: ReasonMissing, result: ResultFailed, undo: true,
				failed: &FetchError{Class: ClassTransient, Message: "a rehearsal"}})
		}
		if _, err := s.commit(ctx, c, lease.Value(), Value{secret.New("rehearsal"), time.Hour, time.Minute}, 0, ReasonMissing, 0); err != nil {
			if errors.Is(err, errRefused) {
				err = &StoreError{Op: "commit", Err: err}
			}
			return err
		}
	}
	return nil
}
