package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"mime/multipart"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The same calls through /proxy by programs that know nothing of tokens, while WeChat kills one
// after another at random moments. No call is under way at two kills: it is repeated once, not for
// ever.
func TestAThousandKilledTokensAreNotSeenThroughTheProxy(t *testing.T) {
	kills := 100
	if os.Getenv("WXTOKEN_LONG") == "1" {
		kills = 1000
	}
	c := newSDKCluster(t)
	c.add(2)
	c.Upstream.Tune(func(k *wechattest.Knobs) { k.PerDay = nil }) // WeChat's own limits are far below
	pic := newPicture(t, 20<<10)

	const callers = 4
	var calls, failed atomic.Int64
	var begun [callers]atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		base := c.All[i%len(c.All)].Base() + "proxy/shop/"
		wg.Go(func() {
			for n := i; ; n++ {
				begun[i].Add(1)
				select {
				case <-stop:
					return
				default:
				}
				if err := c.insist(func() error { return c.bareCall(base, n, pic) }); err != nil {
					failed.Add(1)
					t.Errorf("caller %d: %v", i, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	// settled waits until every caller has ended what was under way, and two calls more: one of them
	// may be for a ticket, which comes from the cache and tells nothing of the token.
	settled := func() {
		var from [callers]int64
		for i := range begun {
			from[i] = begun[i].Load()
		}
		for deadline := time.Now().Add(rig.Patience); failed.Load() == 0; time.Sleep(time.Millisecond) {
			done := true
			for i := range begun {
				done = done && begun[i].Load() >= from[i]+3
			}
			if done {
				return
			}
			if time.Now().After(deadline) {
				t.Error("the callers are stuck")
				failed.Add(1)
			}
		}
	}
	settled()
	start, killed, costly := time.Now(), 0, 0
	for ; killed < kills && failed.Load() == 0; killed++ {
		before := c.kill(kinds["oa"], 40001)
		settled()
		if n := c.Upstream.Calls(appID).Fetches() - before; n > 1 {
			costly++
		}
		time.Sleep(time.Duration(mathrand.Int64N(int64(4 * time.Millisecond))))
	}
	took := time.Since(start)
	close(stop)
	wg.Wait()
	c.want("kills that cost more than one fetch", costly, 0)
	got := c.Upstream.Calls(appID)
	if got.Fetches() > killed+1 {
		c.want(fmt.Sprintf("fetches for %d kills", killed), got.Fetches(), killed+1)
	}
	t.Logf("%d kills in %v: %d calls, %d failed; WeChat saw %d fetches and rejected %d calls",
		killed, took.Round(time.Millisecond), calls.Load(), failed.Load(), got.Fetches(), got.BadToken)
}

// bareCall makes the n-th call of a program without an SDK and without a token.
func (c *cluster) bareCall(base string, n int, pic picture) error {
	var request *http.Request
	var err error
	switch n % 4 {
	case 0:
		request, err = http.NewRequest(http.MethodGet, base+"cgi-bin/menu/get", nil)
	case 1:
		request, err = http.NewRequest(http.MethodPost, base+"cgi-bin/message/custom/send",
			strings.NewReader(`{"touser":"oOpenID","msgtype":"text","text":{"content":"你好"}}`))
	case 2:
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, _ := form.CreateFormFile("media", "图.jpg")
		_, _ = part.Write(pic.bytes)
		_ = form.Close()
		if request, err = http.NewRequest(http.MethodPost, base+"cgi-bin/media/upload?type=image", &body); err == nil {
			request.Header.Set("Content-Type", form.FormDataContentType())
		}
	case 3:
		request, err = http.NewRequest(http.MethodGet, base+"cgi-bin/ticket/getticket?type=jsapi", nil)
	}
	if err != nil {
		return err
	}
	response, err := rig.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Errcode int
		Errmsg  string
		Menu    any
		MediaID string `json:"media_id"`
		Ticket  string
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	if err != nil || response.StatusCode != http.StatusOK || answer.Errcode != 0 {
		return fmt.Errorf("%s: %s, %d %s, %w", request.URL.Path, response.Status, answer.Errcode, answer.Errmsg, err)
	}
	switch n % 4 {
	case 0:
		return sameMenu(answer.Menu)
	case 2:
		return c.arrived(answer.MediaID, pic)
	case 3:
		return want(c.Upstream.TicketValid(appID, "jsapi", answer.Ticket), true)
	}
	return nil
}

func sameMenu(got any) error {
	var menu any
	if err := json.Unmarshal([]byte(sdkMenu), &menu); err != nil {
		return err
	}
	if !reflect.DeepEqual(got, menu) {
		return fmt.Errorf("got the menu %v, want %v", got, menu)
	}
	return nil
}
