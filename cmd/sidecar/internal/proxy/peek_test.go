package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Nothing that is looked at changes, nothing long is kept, and the code is that of the whole answer
// or none.
func FuzzPeek(f *testing.F) {
	const pad = "0123456789abcdef"
	for _, body := range []string{
		`{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r rid: 6aac0063-7ed08fb9-1250f724"}`,
		`{"errcode":42001,"errmsg":"access_token expired rid: 68aeab00-21ea7900-3a442400"}`,
		`{"errcode":40014,"errmsg":"invalid access_token","ip_list":[]}`, `{"access_token":"ACCESS_TOKEN","expires_in":7200}`,
		`{"ip_list":["106.55.206.146"]}`, `{"menu":{"button":[{"errcode":40001}]}}`, `{"errcode":"40001"}`, `{"errcode":1e400}`, `{"errcode":0,"errcode":40001}`,
		"\xef\xbb\xbf{\"errcode\":40001}", "\xef\xbb", "", " ", "{", "[{}]", "null", "<html>", "\xff\xd8\xff\xe0", `{"errcode":40001`, `{"errcode":40001} x`,
		`{"` + strings.Repeat(pad, maxPeek/len(pad)) + `":1,"errcode":40001}`,
	} {
		f.Add([]byte(body), "application/json; encoding=utf-8", "", true, uint16(7), uint16(0))
		f.Add([]byte(body), "text/plain", "", false, uint16(512), uint16(3))
		f.Add([]byte(body), "", "gzip", false, uint16(1), uint16(0))
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding string, known bool, chunk, breaks uint16) {
		source := &chunks{body: body, size: 1 + int(chunk)}
		if breaks > 0 {
			source.breaks = int(breaks)
		}
		res := &http.Response{StatusCode: 200, ContentLength: -1, Body: source,
			Header: http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}}
		if known {
			res.ContentLength = int64(len(body))
		}
		code := peek(res)
		if source.read > maxPeek+maxPeek {
			t.Fatalf("peek took %d bytes", source.read)
		}
		got, err := io.ReadAll(res.Body)
		want, wantErr := body, error(nil)
		if source.breaks > 0 && source.breaks < len(body) {
			want, wantErr = body[:source.breaks], errBreaks
		}
		if !bytes.Equal(got, want) || !errors.Is(err, wantErr) {
			t.Fatalf("after peek the body has %d bytes and %v, want %d and %v", len(got), err, len(want), wantErr)
		}
		if whole, _ := wechat.Errcode(body); code != 0 && (code != whole || wantErr != nil || len(body) > maxPeek) {
			t.Fatalf("peek says %d, the answer %d", code, whole)
		}
		_ = res.Body.Close()
		if !source.closed && len(body) > 0 {
			t.Fatal("the body was not closed")
		}
	})
}

var errBreaks = errors.New("breaks")

// chunks is a body that comes in pieces, and may break off.
type chunks struct {
	body               []byte
	size, breaks, read int
	closed             bool
}

func (c *chunks) Read(p []byte) (int, error) {
	end := len(c.body)
	if c.breaks > 0 && c.breaks < end {
		end = c.breaks
	}
	if c.read == end {
		if end < len(c.body) {
			return 0, errBreaks
		}
		return 0, io.EOF
	}
	n := copy(p, c.body[c.read:min(end, c.read+c.size)])
	c.read += n
	return n, nil
}

func (c *chunks) Close() error { c.closed = true; return nil }

// An answer that turns out to be no JSON object, or too long, is not read further than that.
func TestPeekStopsEarly(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		most int
	}{
		"no object": {strings.Repeat("x", 1<<20), 512},
		"an array":  {"  [" + strings.Repeat("1,", 1<<20), 512},
		"too long":  {`{"a":"` + strings.Repeat("x", 1<<20), 2 * maxPeek},
	} {
		source := &chunks{body: []byte(tt.body), size: 100}
		res := &http.Response{StatusCode: 200, ContentLength: -1, Body: source, Header: http.Header{}}
		if code := peek(res); code != 0 || source.read > tt.most {
			t.Errorf("%s: read %d bytes, code %d", name, source.read, code)
		}
	}
	// A reader that returns the end together with the last bytes.
	res := &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(iotest.DataErrReader(strings.NewReader(`{"errcode":42001}`))), Header: http.Header{}}
	if code := peek(res); code != 42001 {
		t.Errorf("code %d", code)
	}
}
