package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// refused explains why WeChat gave nothing.
func (e *examination) refused(check string, err error) {
	w, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		e.fail(check, text.OneLine(err.Error()), "")
		return
	}
	x, state := w.Explain(), Fail
	if address := w.EgressIP(); address != "" {
		x.Meaning += ", " + address
		x.Fix = strings.Replace(x.Fix, "it ", address+" ", 1) // "put it on", or "add it to": each such code has one
	}
	switch w.Class() {
	case wechat.ClassRetry, wechat.ClassMinute:
		state = Warn
		x.Fix = "nothing: it passes, and the sidecar tries again; if it stays for hours, find who else fetches tokens of this app, or ask WeChat's support"
	}
	if x.Meaning == "" {
		x.Meaning = "WeChat gives no answer that can be used"
	}
	if x.Where != "" {
		x.Fix += " (" + x.Where + ")"
	}
	e.found(Finding{check, state, x.Meaning + ": " + says(w), x.Fix})
}

// says repeats WeChat's own words. They hold nothing of what was sent.
func says(w *wechat.Error) string {
	if w.Code == 0 {
		return text.OneLine(w.Error())
	}
	return fmt.Sprintf("errcode %d, %s", w.Code, text.OneLine(w.Message))
}
