package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// A panic after the answer began must end the connection: half an answer passes for a whole one.
func TestPanicInTheMiddleOfAnAnswerHangsUp(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		panics  int
		hangUp  bool
	}{
		"before":      {func(http.ResponseWriter, *http.Request) { panic("x") }, 1, false},
		"informed":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); panic("x") }, 1, false},
		"in the body": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")); panic("x") }, 1, true},
		"in between":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); panic("x") }, 1, true},
		"on purpose":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, true},
	} {
		panics := 0
		h := Recovering(c.handler, zap.NewNop(), func() { panics++ }, Fail)
		w := httptest.NewRecorder()
		hungUp := func() (yes bool) {
			defer func() { yes = recover() == http.ErrAbortHandler }()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			return false
		}()
		if hungUp != c.hangUp || panics != c.panics {
			t.Errorf("%s: hung up %v, %d panics counted", name, hungUp, panics)
		}
		if got := strings.Contains(w.Body.String(), problemType+"internal"); got == c.hangUp {
			t.Errorf("%s: got %s", name, w.Body)
		}
	}
}

// A face that streams needs what the server's ResponseWriter can do besides.
func TestControllerReachesTheServer(t *testing.T) {
	errs := make(chan error, 2)
	s := httptest.NewServer(Recovering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		errs <- errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.Flush())
	}), zap.NewNop(), func() {}, Fail))
	defer s.Close()
	r, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if err := <-errs; err != nil {
		t.Error(err)
	}
}
