package statuspage

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The beginning of a fetch is news only while it has no end.
func TestTheTimelineLeavesOutBeginningsThatHaveAnEnd(t *testing.T) {
	begun := func(by string) entryStatus {
		return entryStatus{App: "wx1", Kind: "access_token", By: by, Result: tokencache.ResultCut, Why: tokencache.ResultFetch}
	}
	done := func(by string) entryStatus {
		return entryStatus{App: "wx1", Kind: "access_token", By: by, Result: tokencache.ResultCommitted}
	}
	cut := entryStatus{App: "wx1", Kind: "access_token", By: "b", Result: tokencache.ResultCut, Why: tokencache.ResultRefused}
	newestFirst := []entryStatus{begun("a"), done("b"), cut, begun("b"), begun("died"), done("a"), begun("a")}
	want := []entryStatus{begun("a"), done("b"), cut, begun("died"), done("a")}
	if diff := cmp.Diff(want, ended(newestFirst)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
