package vault

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// What WeChat says of permissions takes little of the vault, and comes back as it was.
func TestWhatRepeatsItselfIsPacked(t *testing.T) {
	var permissions strings.Builder
	for i := range 60 {
		fmt.Fprintf(&permissions, `{"funcscope_category":{"id":%d}},`, i)
	}
	for name, c := range map[string]struct {
		info string
		most int // bytes that are sealed of it
	}{
		"permissions": {permissions.String(), permissions.Len() / 4},
		"short":       {`{"code":"x"}`, 12},
		"none":        {"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := newContent(Record{Secret: secret.New("secret"), Info: []byte(c.info)})
			if n := len(got.Info) + len(got.Packed); n > c.most {
				t.Errorf("%d bytes of %d, want at most %d", n, len(c.info), c.most)
			}
			if back, err := got.info(); string(back) != c.info || err != nil || got.Secret != "secret" {
				t.Errorf("%q, %v", back, err)
			}
		})
	}
}

func TestWhatCannotBeUnpackedIsNoRecord(t *testing.T) {
	var long bytes.Buffer
	w, _ := flate.NewWriter(&long, flate.BestCompression)
	_, _ = w.Write(make([]byte, 1<<20))
	_ = w.Close()
	for name, packed := range map[string][]byte{
		"more than a record can have": long.Bytes(),
		"cut off":                     long.Bytes()[:long.Len()/2],
		"garbage":                     []byte("garbage"),
	} {
		if info, err := (content{Packed: packed}).info(); !errors.Is(err, ErrSealed) || info != nil {
			t.Errorf("%s: %d bytes, %v", name, len(info), err)
		}
	}
}
