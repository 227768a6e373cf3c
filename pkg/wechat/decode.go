package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// maxValue bounds a credential, in bytes. Tencent promises no more than "reserve at least 512" [T].
const maxValue = 4096

// answer is one decoded JSON object of WeChat. Its keys are compared exactly; of a key that occurs
// twice the last one counts.
type answer struct {
	code   int    // errcode; absent is 0, because most successes have none [T]
	msg    string // errmsg as sent; for the decision only errcode counts
	fields map[string]json.RawMessage
	date   time.Time // the header Date; zero if there is none
}

// decode reads an answer. It goes by the bytes alone: WeChat sends JSON as text/plain, too, and
// "application/json; encoding=utf-8" [U]. The errors hold nothing of the body.
func decode(body []byte) (answer, error) {
	var a answer
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(body)) == 0 {
		return a, errors.New("the answer is empty")
	}
	if err := json.Unmarshal(body, &a.fields); err != nil || a.fields == nil {
		return a, errors.New("the answer is not a JSON object")
	}
	code, err := integer(a.fields["errcode"])
	if err != nil || code != int64(int32(code)) {
		return a, errors.New("the answer has an errcode that is no number")
	}
	a.code = int(code)
	_ = json.Unmarshal(a.fields["errmsg"], &a.msg) // not text: as good as none
	return a, nil
}

// credential takes a value and its life from a successful answer. The errors hold nothing of it.
func (a answer) credential(field string) (Credential, error) {
	value, err := text(a.fields, field)
	if err != nil {
		return Credential{}, err
	}
	if value == "" {
		return Credential{}, errors.New("the answer has no " + field)
	}
	seconds, err := integer(a.fields["expires_in"])
	if err != nil || seconds <= 0 {
		return Credential{}, errors.New("the answer has no positive expires_in")
	}
	life := time.Duration(min(seconds, int64(MaxExpiresIn/time.Second))) * time.Second
	return Credential{Value: secret.New(value), ExpiresIn: life}, nil
}

// text reads a member that is an id or a secret: printable ASCII without spaces. Absent, null and ""
// are "". The errors hold nothing of it.
func text(fields map[string]json.RawMessage, field string) (string, error) {
	var value string
	if raw, ok := fields[field]; ok && json.Unmarshal(raw, &value) != nil {
		return "", errors.New("the answer has a " + field + " that is no text")
	}
	if len(value) > maxValue {
		return "", errors.New("the " + field + " is longer than " + strconv.Itoa(maxValue) + " bytes")
	}
	// A space, a control character or a byte beyond ASCII would change on its way through a
	// header, a URL or a shell, and no WeChat credential was ever seen with one.
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the " + field + " contains characters that no credential has")
	}
	return value, nil
}

// object reads a member that is an object.
func object(fields map[string]json.RawMessage, field string) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(fields[field], &members) != nil || members == nil {
		return nil, errors.New("the answer has no " + field)
	}
	return members, nil
}

// raw returns a member as it was sent, nil if it is absent or null.
func raw(fields map[string]json.RawMessage, field string) json.RawMessage {
	if r := fields[field]; string(r) != "null" {
		return r
	}
	return nil
}

// integer reads a JSON number or a number in a JSON string, dropping a fraction. Absent and null
// are 0. What does not fit saturates.
func integer(raw json.RawMessage) (int64, error) {
	text := string(raw)
	if text == "" || text == "null" {
		return 0, nil
	}
	if text[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return 0, err
		}
		text = strings.TrimSpace(text)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	// Infinite with an error is a number out of range; without one, the word "inf".
	case math.IsNaN(f), math.IsInf(f, 0) == (err == nil):
		return 0, errors.New("not a number")
	case f >= math.MaxInt64:
		return math.MaxInt64, nil
	case f <= math.MinInt64:
		return math.MinInt64, nil
	}
	return int64(f), nil
}

// Errcode returns the errcode of an answer and reports whether body is an answer of WeChat at all,
// that is, a JSON object. Absent is 0. It is for those who pass answers on: give it a body small
// enough to have been kept, never a part of one.
func Errcode(body []byte) (code int, ok bool) {
	a, err := decode(body)
	return a.code, err == nil
}
