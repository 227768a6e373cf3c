package wechat_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	guardID  = "wxguard"
	guardKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

func guardEnvelope(t *testing.T) *wechat.Envelope {
	t.Helper()
	e, err := wechat.NewEnvelope(secret.New("token"), guardID, secret.New(guardKey))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// signed encrypts a text as it is, without what an envelope puts around it, and signs that.
func signed(t *testing.T, e *wechat.Envelope, text []byte) (url.Values, []byte) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(guardKey + "=")
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed := bytes.Clone(text)
	cipher.NewCBCEncrypter(block, key[:aes.BlockSize]).CryptBlocks(sealed, sealed)
	encrypted := base64.StdEncoding.EncodeToString(sealed)
	query := url.Values{"timestamp": {"1"}, "nonce": {"n"}, "msg_signature": {e.Signature("1", "n", encrypted)}}
	return query, fmt.Appendf(nil, "<xml><AppId>%s</AppId><Encrypt>%s</Encrypt></xml>", guardID, encrypted)
}

// TestWhatIsSignedIsNotThereforeWhole: who knows the Token and not the key can sign anything. What
// comes out then has no shape, and must neither be taken for a push nor end the program.
func TestWhatIsSignedIsNotThereforeWhole(t *testing.T) {
	e := guardEnvelope(t)
	salt := bytes.Repeat([]byte("s"), 16)
	padded := func(text ...[]byte) []byte {
		all := bytes.Join(text, nil)
		pad := 32 - len(all)%32
		return append(all, bytes.Repeat([]byte{byte(pad)}, pad)...)
	}
	length := func(n int) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	whole := bytes.Join([][]byte{salt, length(2), []byte("hi"), []byte(guardID)}, nil)
	good := padded(whole)
	query, body := signed(t, e, good)
	if opened, err := e.Open(query, body); err != nil || string(opened.Message) != "hi" {
		t.Fatalf("what is whole: %q, %v", opened.Message, err)
	}
	uneven := bytes.Clone(good)
	uneven[len(uneven)-2]++
	more := byte(64 - len(whole))
	for name, text := range map[string][]byte{
		"padding of 0":                 bytes.Repeat([]byte{0}, 32),
		"padding of 33":                bytes.Repeat([]byte{33}, 64),
		"padding longer than the text": bytes.Repeat([]byte{32}, 16),
		"uneven padding":               uneven,
		"padding of two blocks":        append(bytes.Clone(whole), bytes.Repeat([]byte{more}, int(more))...),
		"no more than padding":         bytes.Repeat([]byte{32}, 32),
		"no length":                    padded(salt, []byte{0, 0, 0}),
		"a length beyond the end":      padded(salt, length(5), []byte("text")),
		"a length of 4 GiB":            padded(salt, length(-1), []byte("text"), []byte(guardID)),
		"another receiver":             padded(salt, length(4), []byte("text"), []byte("wxother")),
		"no receiver":                  padded(salt, length(4), []byte("text")),
	} {
		query, body := signed(t, e, text)
		if opened, err := e.Open(query, body); err == nil || opened.Message != nil {
			t.Errorf("%s: opened: %q", name, opened.Message)
		}
	}
}

// TestTheSealQuotesNothing: the timestamp and the nonce of a reply come from a request.
func TestTheSealQuotesNothing(t *testing.T) {
	out := string(guardEnvelope(t).Seal([]byte("text"), "1</TimeStamp><A>2", "n]]><B>x</B>"))
	if strings.Contains(out, "<A>") || strings.Count(out, "]]>") != 3 || !strings.Contains(out, "<TimeStamp>12</TimeStamp>") {
		t.Errorf("%s", out)
	}
}

// TestEnvelopesXML: what no push has around its content is refused before anything is decrypted.
func TestEnvelopesXML(t *testing.T) {
	e := guardEnvelope(t)
	query, body := signed(t, e, bytes.Repeat([]byte{32}, 32))
	encrypt := strings.TrimSuffix(strings.TrimPrefix(string(body), "<xml>"), "</xml>")
	for name, text := range map[string]string{
		"text before it":         `x<xml>` + encrypt + `</xml>`,
		"too many fields":        `<xml>` + manyFields(80) + encrypt + `</xml>`,
		"another instruction":    `<?php x?><xml>` + encrypt + `</xml>`,
		"a late declaration":     `<xml>` + encrypt + `<?xml version="1.0"?></xml>`,
		"crossed elements":       `<xml><a><b></a></b>` + encrypt + `</xml>`,
		"an end without a start": `</xml>`,
		"elements in it":         `<xml><Encrypt><a/>AAAA</Encrypt></xml>`,
		"empty":                  `<xml><Encrypt></Encrypt></xml>`,
	} {
		if _, err := e.Open(query, []byte(text)); err != wechat.ErrEnvelope {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What pushes do have.
	for name, text := range map[string]string{
		"a declaration":     `<?xml version="1.0"?>` + "\n<xml>" + encrypt + "</xml>\n",
		"another field":     `<xml><A>b</A>` + encrypt + `</xml>`,
		"elements in one":   `<xml><A><B>c</B></A>` + encrypt + `</xml>`,
		"a second Encrypt":  `<xml>` + encrypt + `<Encrypt>AAAA</Encrypt></xml>`,
		"as many as may be": `<xml>` + manyFields(50) + encrypt + `</xml>`,
	} {
		if _, err := e.Open(query, []byte(text)); err != wechat.ErrDecrypt {
			t.Errorf("%s: %v, want that it is read", name, err)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<F%d>x</F%d>", i, i)
	}
	return b.String()
}
