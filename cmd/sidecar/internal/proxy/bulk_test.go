package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	mediaUpload   = "/proxy/shop/cgi-bin/media/upload?type=image"
	mediaDownload = "/proxy/shop/cgi-bin/media/get?media_id=size-"
)

// allocated returns how many bytes all of this process, client and WeChat included, allocates for
// f.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func digest(r io.Reader) string {
	sum := sha256.New()
	_, _ = io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil))
}

// form is a multipart body with a file of n bytes, and its length.
func form(n int64) (io.Reader, int64, string) {
	const head = "--edge\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"
	const tail = "\r\n--edge--\r\n"
	body := io.MultiReader(strings.NewReader(head), wechattest.MediaBody(n), strings.NewReader(tail))
	return body, int64(len(head)) + n + int64(len(tail)), "multipart/form-data; boundary=edge"
}

// upload sends a file of n bytes, and returns what the simulator got and the answer.
func (r *rig) upload(n int64, header ...string) (wechattest.Upload, answer) {
	body, length, contentType := form(n)
	req, err := http.NewRequestWithContext(context.Background(), "POST", "http://x"+mediaUpload, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.ContentLength = length
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var id struct {
		MediaID string `json:"media_id"`
	}
	_ = json.Unmarshal(text, &id) // no JSON: no upload
	up, _ := r.WeChat.Uploaded(id.MediaID)
	return up, answer{res.StatusCode, res.Header, string(text)}
}

func TestLargeUploadIsStreamed(t *testing.T) {
	const size = 10 << 20
	r := newRig(t, options{})
	r.upload(100) // connections and token
	want := digest(wechattest.MediaBody(size))
	var up wechattest.Upload
	used := allocated(func() { up, _ = r.upload(size) })
	if up.Size != size || up.SHA256 != want || up.Type != "image" || up.Filename != "a.jpg" {
		t.Errorf("WeChat got %+v", up)
	}
	if used > size/10 {
		t.Errorf("%d bytes were allocated for %d", used, size)
	}
}

func TestLargeDownloadIsStreamed(t *testing.T) {
	const size = 50 << 20
	r := newRig(t, options{})
	r.call("GET", mediaDownload+"100", "")
	sum, n := sha256.New(), int64(0)
	used := allocated(func() {
		res, err := r.http.Get("http://x" + mediaDownload + fmt.Sprint(size))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if n, err = io.Copy(sum, res.Body); err != nil || res.ContentLength != size {
			t.Errorf("length %d, %v", res.ContentLength, err)
		}
	})
	if want := digest(wechattest.MediaBody(size)); n != size || hex.EncodeToString(sum.Sum(nil)) != want {
		t.Errorf("%d bytes came, or others", n)
	}
	if used > size/50 {
		t.Errorf("%d bytes were allocated for %d", used, size)
	}
}

// A client that waits for a word before it sends its body gets that word.
func TestUploadWithExpectContinue(t *testing.T) {
	r := newRig(t, options{})
	for _, size := range []int64{1000, 2 << 20} { // kept, streamed
		up, a := r.upload(size, "Expect", "100-continue")
		if up.Size != size {
			t.Errorf("%d bytes: %v", size, a)
		}
		if got := r.calls()[0].header.Get("Expect"); got != "" {
			t.Errorf("Expect: %s went on", got)
		}
	}
	// And one that is refused need not send it.
	if status := r.raw(t, "POST /proxy/shop/../x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"); status != 400 {
		t.Errorf("refused: status %d", status)
	}
}

// Callers without a break, and a token that dies again and again at random moments: they see no
// error, and each death costs one fetch. In virtual time.
func TestKillsAreNotSeen(t *testing.T) {
	const callers = 3
	kills := 100
	if os.Getenv("WXTOKEN_LONG") == "1" {
		kills = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, options{pipes: true})
		r.WeChat.Tune(func(k *wechattest.Knobs) {
			k.PerDay = nil
			k.LatencyFunc = func(*http.Request) time.Duration { return rand.N(200 * time.Millisecond) }
		})
		r.Token(r.t, shop)

		ctx, cancel := context.WithCancel(t.Context())
		var calls, retried atomic.Int64
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				text := fmt.Sprintf(`{"caller":%d,"text":"%s"}`, i, strings.Repeat("x", i*300))
				sum := digest(strings.NewReader(text))
				for ctx.Err() == nil {
					a := r.call("POST", send, text)
					if a.status != 200 || a.header.Get("X-Sim-Body-Sha256") != sum || !strings.HasPrefix(a.body, `{"errcode":0`) {
						t.Errorf("a caller saw %v", a)
					}
					calls.Add(1)
					if a.header.Get("X-Wxtoken-Retried") != "" {
						retried.Add(1)
					}
					time.Sleep(rand.N(1500 * time.Millisecond))
				}
			})
		}
		for i := range kills {
			// Two deaths within one call are more than one retry can fix. So a death comes at any
			// moment after a caller has met the last one, but for the second in which others still
			// meet it.
			for r.WeChat.Calls(shop.CredentialID()).Issued < i+1 {
				time.Sleep(rand.N(100 * time.Millisecond))
			}
			time.Sleep(time.Second + rand.N(time.Second))
			r.WeChat.KillTokens(shop.CredentialID())
		}
		time.Sleep(5 * time.Second)
		cancel()
		all.Wait()
		if n := r.WeChat.Calls(shop.CredentialID()).Issued; n != kills+1 {
			t.Errorf("%d fetches for %d kills", n, kills)
		}
		t.Logf("%d calls, %d retried, %d fetches", calls.Load(), retried.Load(), r.WeChat.Calls(shop.CredentialID()).Issued)
	})
}

// Many calls are under way with a token when it dies, and their rejections come in one after the
// other, most of them when the next token is there already. No caller asks WeChat whether a
// reported token works: only the comparison keeps a late report from ending the new one.
func TestLateRejectionsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, options{pipes: true, spec: func(c *tokencache.Credential) { c.Probe = nil }})
		r.Token(r.t, shop)
		r.WeChat.Tune(func(k *wechattest.Knobs) {
			var n atomic.Int64
			k.LatencyFunc = func(req *http.Request) time.Duration {
				if req.URL.Path == "/cgi-bin/token" {
					return 10 * time.Millisecond
				}
				return time.Duration(n.Add(1)) * 100 * time.Millisecond
			}
		})
		r.WeChat.KillTokens(shop.CredentialID())
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if a := r.call("GET", menu, ""); a.header.Get("X-Wxtoken-Retried") != "1" || a.status != 200 {
					t.Errorf("%v", a)
				}
			})
		}
		all.Wait()
		if n := r.WeChat.Calls(shop.CredentialID()).Issued; n != 2 {
			t.Errorf("%d tokens were issued, want 2", n)
		}
	})
}

// Options.MaxReplay < 0 keeps nothing; a body without a length cannot go anywhere then.
func TestNothingKept(t *testing.T) {
	r := newRig(t, options{Options: proxy.Options{MaxReplay: -1}})
	if a := r.call("POST", send, "{}"); a.status != 200 {
		t.Error(a)
	}
	if a, err := r.try(t.Context(), "POST", send, io.MultiReader(bytes.NewReader([]byte("{}")))); err != nil || a.status != 411 {
		t.Error(a, err)
	}
}
