package web

import (
	"fmt"
	"net/http"
	"runtime/debug"

	"go.uber.org/zap"
)

// Recovering answers for a handler that panicked. What it panicked with may hold a value, so only
// the type is logged. panicked is called, too.
func Recovering(next http.Handler, log *zap.Logger, panicked func(), fail failFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v) // net/http's way to hang up
			}
			panicked()
			log.Error("a handler panicked", zap.String("type", fmt.Sprintf("%T", v)), zap.String("stack", string(debug.Stack())))
			if t.begun {
				panic(http.ErrAbortHandler) // half an answer must not pass for one
			}
			fail(t, r, internal())
		}()
		next.ServeHTTP(t, r)
	})
}

// tracked knows whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	begun bool
}

func (t *tracked) WriteHeader(status int) {
	t.begun = t.begun || status >= http.StatusOK
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
