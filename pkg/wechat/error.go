package wechat

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// maxMessage bounds [Error.Message] and the text of a cause, in bytes.
const maxMessage = 200

// An Error is a call that did not succeed. None of its fields or methods gives away a secret, a
// token, a query or a body. It is immutable once returned, so safe for concurrent use.
//
// Decide on [Error.Class] and [Error.MayHaveIssued], never on Message: WeChat changes the texts.
type Error struct {
	// API is the API that was called, which decides what Code means.
	API API
	// Endpoint is the path, such as "/cgi-bin/token".
	Endpoint string
	// Code is WeChat's errcode; 0 if it gave none.
	Code int
	// Message is WeChat's errmsg: printable, at most 200 bytes, without what we had sent.
	Message string
	// Status is the HTTP status; 0 if there was no answer. WeChat sends 200 with an errcode.
	Status int
	// Sent is false only if the request surely did not leave: it could not be built, or no
	// connection came about. True does not mean that WeChat received it.
	Sent bool

	// cause says what else is known: transport errors as [safeCause] rebuilt them.
	cause error
}

// Error describes the failure in one line, such as
// "wechat: calling /cgi-bin/token: errcode 40013: invalid appid".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("wechat: calling ")
	b.WriteString(e.Endpoint)
	if e.Status != 0 && e.Status != http.StatusOK {
		b.WriteString(": HTTP status ")
		b.WriteString(strconv.Itoa(e.Status))
	}
	if e.Code != 0 {
		b.WriteString(": errcode ")
		b.WriteString(strconv.Itoa(e.Code))
	}
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.cause != nil {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause, or nil if WeChat's answer says it all. Of transport errors only the
// kind is left: test with [errors.Is] for [context.DeadlineExceeded], [context.Canceled],
// [io.ErrUnexpectedEOF], [io.EOF], [syscall.ECONNREFUSED] or [syscall.ECONNRESET].
func (e *Error) Unwrap() error { return e.cause }

// Class says what kind of failure this is. Without an errcode it goes by the HTTP status: no
// answer, an unreadable one, 408, 429 and 5xx are [ClassRetry]; a redirect, 412 (the request was
// chunked [U]) and the other 4xx mean that BaseURL or something on the way to WeChat is wrong,
// [ClassConfig].
func (e *Error) Class() Class {
	if e.Code != 0 {
		return Classify(e.API, e.Code)
	}
	switch {
	case e.Status == http.StatusRequestTimeout, e.Status == http.StatusTooManyRequests:
		return ClassRetry
	case e.Status >= 300 && e.Status < 500:
		return ClassConfig
	}
	if _, ok := errors.AsType[*requestError](e.cause); ok {
		return ClassConfig
	}
	return ClassRetry
}

// MayHaveIssued reports whether WeChat may have issued a credential in spite of the error; on
// /cgi-bin/token, whether WeChat may have replaced the previous token by one whose answer is lost.
// It is false if WeChat answered with an errcode, or any server with a 3xx or 4xx, or the request
// surely did not leave. It is true for a timeout, a reset, half an answer, a 200 that cannot be
// read, and for a 5xx whatever its body says, because WeChat's own errcodes come with 200.
//
// For calls that issue nothing, it has no meaning.
func (e *Error) MayHaveIssued() bool {
	switch {
	case e.Status >= 500:
		return true
	case e.Code != 0, e.Status >= 300:
		return false
	}
	return e.Sent
}

// RetryAfter returns how long the errcode itself says to wait, or 0 if it says nothing: the next
// minute for 45011; the 1 hour and 24 hours for which 89507 and 89506 shut out an address [T*]; 5
// minutes, which is our choice, while an administrator has to confirm one (89501, 89503).
func (e *Error) RetryAfter() time.Duration {
	switch e.Code {
	case 45011:
		return time.Minute
	case 89501, 89503:
		return 5 * time.Minute
	case 89507:
		return time.Hour
	case 89506:
		return 24 * time.Hour
	}
	return 0
}

// BadTicket reports whether WeChat rejected the ticket of a third-party platform or a suite. The next
// push, within 10 minutes, brings another one.
func (e *Error) BadTicket() bool {
	if e.API.onWeCom() {
		return e.Code == 40085
	}
	return e.Code == 61005 || e.Code == 61006
}

// BadCode reports whether WeChat rejected the code of an authorisation: it was exchanged before,
// has expired, or never was one.
func (e *Error) BadCode() bool {
	if e.API.onWeCom() {
		return e.Code == 40078
	}
	return e.Code == 61009 || e.Code == 61010
}

// BadAuthorization reports whether WeChat rejected an authorisation: withdrawn, or fetched with a
// refresh token or permanent code that is not the present one. It is no proof that the authorisation
// has ended: 61003 also came, for hours, from an outage of WeChat [U].
func (e *Error) BadAuthorization() bool {
	if e.API.onWeCom() {
		return e.Code == 40084
	}
	return e.Code == 61003 || e.Code == 61023
}

// EgressIP returns the address from which WeChat saw the call, as the errmsg of 40164, 61004,
// 45035 or 60020 states it, without the IPv4-in-IPv6 prefix. It is empty if there is none.
func (e *Error) EgressIP() string {
	switch e.Code {
	case 40164, 45035, 60020, 61004:
	default:
		return ""
	}
	words := strings.FieldsFunc(e.Message, func(r rune) bool {
		return r != '.' && r != ':' && !unicode.Is(unicode.ASCII_Hex_Digit, r)
	})
	for _, word := range words {
		// "requestIP: 47.107.99.226": what is left of the label is a lone colon.
		if ip, err := netip.ParseAddr(word); err == nil && !ip.IsUnspecified() {
			return ip.Unmap().String()
		}
	}
	return ""
}

// Explain returns what the error means for an operator, and what to do. For an error without an
// explanation of its own it goes by the [Class]; the zero Explanation says that nothing is to be
// done.
func (e *Error) Explain() Explanation {
	if x, ok := wordsOf(e.API)[e.Code]; ok {
		return x
	}
	if x := codes[e.Code].explanation; x != none && Classify(e.API, e.Code) != ClassOther {
		return x
	}
	switch class := e.Class(); {
	case class == ClassEgress:
		return wrongAddress
	case class == ClassQuota:
		return spentQuota
	case class != ClassConfig:
		return none
	case e.Status == http.StatusPreconditionFailed:
		return Explanation{"something between here and WeChat removes the Content-Length", "make it keep it", ""}
	}
	return Explanation{"WeChat refuses", "check the base URL, and the proxy or gateway in front of WeChat", ""}
}

// Advice returns what [Error.Explain] says as one or two sentences, or "" if a person need not act.
func (e *Error) Advice() string {
	switch e.Class() {
	case ClassConfig, ClassEgress, ClassQuota:
	default:
		return ""
	}
	x := e.Explain()
	text := sentence(x.Meaning)
	if x.Fix != "" {
		text += " " + sentence(x.Fix)
	}
	return text
}

// sentence makes a sentence of a text that begins in lower case, or with a name.
func sentence(text string) string {
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// printable makes a foreign text fit for a log line: without the secrets, on one line, valid UTF-8,
// at most limit bytes.
func printable(text string, limit int, secrets []secret.String) string {
	text = secret.Scrub(text, secrets...)
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") // not half a character
	}
	return strings.TrimSpace(text)
}
