package vault

import (
	"bytes"
	"compress/flate"
	"io"
	"sync"
)

// content is what is sealed of a record.
type content struct {
	Secret string `json:"secret,omitempty"`
	Info   []byte `json:"info,omitempty"`
	// Packed is Info compressed by DEFLATE, instead of it where that is shorter: a list of permissions
	// repeats itself, and a vault in Redis has thousands. The secret is not in it: how well both
	// compress together would tell of the secret.
	Packed []byte `json:"packed,omitempty"`
}

// packers are reused: each takes more than half a MiB.
var packers = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.DefaultCompression) // the level is valid
	return w
}}

func newContent(r Record) content {
	c := content{Secret: r.Secret.Reveal(), Info: r.Info}
	var packed bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&packed)
	_, _ = w.Write(r.Info) // into memory: cannot fail
	_ = w.Close()
	if packed.Len() < len(r.Info) {
		c.Info, c.Packed = nil, packed.Bytes()
	}
	return c
}

// info returns the record's Info. The error is [ErrSealed].
func (c content) info() ([]byte, error) {
	if len(c.Packed) == 0 {
		return c.Info, nil
	}
	info, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(c.Packed)), longestInfo+1))
	if err != nil || len(info) > longestInfo {
		return nil, ErrSealed
	}
	return info, nil
}
