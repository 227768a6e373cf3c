package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
)

// returnsRefreshTokens are the calls that go on to WeChat and whose answers have refresh tokens, which
// never leave the sidecar. A program does without: it sends what it was given in their place.
var returnsRefreshTokens = map[string]bool{
	"/cgi-bin/component/api_get_authorizer_info": true,
	"/cgi-bin/component/api_get_authorizer_list": true,
}

// maxHidden bounds such an answer, in bytes: a page of 500 accounts has some 80 KB.
const maxHidden = 512 << 10

// hideRefreshTokens replaces the refresh tokens of an answer. One that it cannot read is not passed
// on.
func hideRefreshTokens(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHidden+1))
	if err == nil && len(body) <= maxHidden {
		body, err = withoutRefreshTokens(body)
	} else {
		err = io.ErrShortBuffer
	}
	_ = res.Body.Close()
	if err != nil {
		return &refusal{outcome: Broken, status: http.StatusBadGateway, errcode: -1,
			text: "WeChat's answer may have refresh tokens, and cannot be read: it is not passed on"}
	}
	res.Body, res.ContentLength = inMemory{bytes.NewReader(body)}, int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// withoutRefreshTokens replaces the values of the members that hold refresh tokens, wherever they are,
// and leaves the rest as it is. An empty one stays: it says that there is none. The error is that of
// JSON.
func withoutRefreshTokens(body []byte) ([]byte, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !json.Valid(body) {
		return nil, io.ErrUnexpectedEOF
	}
	var out []byte
	from := int64(0)
	var inObject []bool // of each open bracket
	isKey, secretNext := false, false
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		before := d.InputOffset()
		token, err := d.Token()
		if err == io.EOF {
			return append(out, body[from:]...), nil
		}
		if err != nil {
			return nil, err
		}
		depth := len(inObject)
		text, isText := token.(string)
		switch bracket, isBracket := token.(json.Delim); {
		case secretNext && isBracket:
			return nil, io.ErrUnexpectedEOF // no refresh token is one
		case bracket == '{', bracket == '[':
			inObject = append(inObject, bracket == '{')
			isKey = bracket == '{'
			continue
		case isBracket:
			inObject = inObject[:depth-1]
			depth--
		case isText && isKey:
			secretNext = text == "refresh_token" || text == "authorizer_refresh_token"
			isKey = false
			continue
		case secretNext && token != nil && token != "":
			at := before + int64(bytes.IndexAny(body[before:d.InputOffset()], `"-0123456789tf`))
			out = append(append(out, body[from:at]...), `"`+apps.Placeholder+`"`...)
			from = d.InputOffset()
		}
		isKey, secretNext = depth > 0 && inObject[depth-1], false
	}
}
