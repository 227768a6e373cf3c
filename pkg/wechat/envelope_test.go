package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/url"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// The encrypted texts of Tencent's documents and samples.
const (
	vectorA      = "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg=="
	vectorB      = "P9nAzCzyDtyTWESHep1vC5X9xho/qYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp+4RPcs8TgAE7OaBO+FZXvnaqQ=="
	vectorB2     = "RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/0lWfrf0QADHHhGd3QczcdCUpj911L3vg3W/sYYvuJTs3TUUkSUXxaccAS0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06DOdnLxAUHzM6+kDZ+HMZfJYuR+LtwGc2hgf5gsijff0ekUNXZiqATP7PF5mZxZ3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQH03v+BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUax5wLVMNS0+rUPA3k22Ncx4XXZS9o0MBH27Bo6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/T8Z1ptDAVe0lXdQ2YoyyH2uyPIGHBZZIs2pDBS8R07+qN+E7Q=="
	vectorC      = "hyzAe4OzmOMbd6TvGdIOO6uBmdJoD0Fk53REIHvxYtJlE2B655HuD0m8KUePWB3+LrPXo87wzQ1QLvbeUgmBM4x6F8PGHQHFVAFmOD2LdJF9FrXpbUAh0B5GIItb52sn896wVsMSHGuPE328HnRGBcrS7C41IzDWyWNlZkyyXwon8T332jisa+h6tEDYsVticbSnyU8dKOIbgU6ux5VTjg3yt+WGzjlpKn6NPhRjpA912xMezR4kw6KWwMrCVKSVCZciVGCgavjIQ6X8tCOp3yZbGpy0VxpAe+77TszTfRd5RJSVO/HTnifJpXgCSUdUue1v6h0EIBYYI1BD1DlD+C0CR8e6OewpusjZ4uBl9FyJvnhvQl+q5rv1ixrcpCumEPo5MJSgM9ehVsNPfUM669WuMyVWQLCzpu9GhglF2PE="
	vectorD      = "mfBCs65c67CeJw22u4VT2TD73q5H06+ocrAIxswCaeZ/d/Lw0msSZFHY0teqgSYiI1zR2gD2DKrB3TIrmX/liNSDrGqS8jSI/WPeKB5VPr7Ezr7gomZAyGCwJSgT1TRFWPfONGJMxuj2nk4faTuspAuVIFQ6SHwZuJBZC7mcJp7Cgr9cUhATQWDbOPaE7ukZBTV2YqyzH+UI2AK+J1S47cE79k1RX8t0hcTz/O0hlK8DGXKnvYv88qKQcI7z4iaajqHfRVZKBNyOODabs+It+ZfM3dWTeFcPgDbGtIEnpt/EDtuuA/zMvtkaKdHdswPnVZQ+xdwbYr3ldGvfT8HlEYEgkgKaThxTFobVlwzu2ZkXCjicbP3xdr15Iq48ObgzPpqYuZ3IEoyggZDKClquk0u0orMck4GTF/XyE8yGzc4="
	vectorE      = "D7yzvUNAL930rd28wf21s4hvXhz0L6Uit/p2Di6C5DHyYGpEgdBRnKjBec34JwoQXicwaZC7fOVihW80F4VtsdvE//1vr7oAbqjDv8KenVp+ajKYpJnyQ4zMRhIC+a31fCVOMC03FfzV/QuC94kBP55a+Za3sJgvAn+ZbsNqZI5DkyuzkhQN8OBqCzFhizGmy0xpM0MEA4agpvE+RuNO1rhHTtuJB5yltw1FiYzecSXJ+y/D2r81VkRn2eYjh2ltsoyfbDR7Is6ookXIFxTfyeNyeHxMeT4KN5WpCDmSbTcUYrbBUlkGLJ9n/rU8YOywma6G7aTb7KZKOqCxgfoUlYEZPk4FUL/TK7ShriFDMVCLyjQJ15Ob++agDWtcxhfUfe6HIoIpRW8mKNBQiY/Jd1svvuskA1wLef1RTtzKfMpagSCX/laZINmdnX4zrF6kIaR9P4xQrWXbsTFHTYe0Mg=="
	vectorEreply = "hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7"
)

const keyK1 = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

func envelope(t testing.TB, token, receiver string, keys ...string) *Envelope {
	t.Helper()
	var all []secret.String
	for _, k := range keys {
		all = append(all, secret.New(k))
	}
	e, err := NewEnvelope(secret.New(token), receiver, all...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func signed(timestamp, nonce, signature string) url.Values {
	return url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "msg_signature": {signature}, "signature": {"not-to-be-used"}}
}

func push(encrypted string) []byte {
	return []byte("<xml><ToUserName><![CDATA[to]]></ToUserName>\n<Encrypt><![CDATA[" + encrypted + "]]></Encrypt></xml>")
}

// Vectors A and E-reply: Tencent's samples encrypt these texts to these bytes.
func TestSealingIsThatOfTencentsSamples(t *testing.T) {
	k1 := envelope(t, "x", "wxb11529c136998cb6", keyK1)
	if got := encrypt(k1.keys[0], []byte("aaaabbbbccccdddd"), []byte("我是中文abcd123"), k1.receiver); got != vectorA {
		t.Errorf("A: got %s", got)
	}
	e := envelope(t, "AAAAA", "wx134c8103faa5a59e", strings.Repeat("A", 43))
	const reply = "<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>"
	if got := encrypt(e.keys[0], []byte("999951349e8ee746"), []byte(reply), e.receiver); got != vectorEreply {
		t.Errorf("E-reply: got %s", got)
	}
	if got := e.Signature("1713424427", "415670741", vectorEreply); got != "03e0812039325c2712ef5f0f980fd14c70d6e307" {
		t.Errorf("E-reply: the signature is %s", got)
	}
}

// Vectors B, B2, C, D and E: the pushes of Tencent's documents open, and nothing else does.
func TestPushesOfTencentsDocumentsOpen(t *testing.T) {
	const wecomKey = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
	for name, v := range map[string]struct {
		token, receiver, key, timestamp, nonce, signature, encrypted string
		length                                                       int
		digest                                                       string // how its SHA-256 begins, and ends
	}{
		"B2": {"QDG6eK", "wx5823bf96d3bd56c7", wecomKey, "1409659813", "1372623149", "477715d11cdb4164915debcba66cb864d751f3e6", vectorB2, 284, "62f23e2d…0683f32"},
		"C":  {"spamtest", "wx2c2769f8efd9abc2", keyK1, "1409735669", "1320562132", "5d197aaffba7e9b25a30732f161a50dee96bd5fa", vectorC, 280, "9bcd3b10…11214"},
		"D":  {"spamtest", "wx2c2769f8efd9abc2", keyK1, "1410349438", "298025754", "003fee52ecc56afb46c00b5c7721be87860ce785", vectorD, 280, "798a7823…1026e"},
		"E":  {"AAAAA", "wx134c8103faa5a59e", strings.Repeat("A", 43), "1715943329", "1590219412", "6c12a4205838198b8fa631b3220723bb07f1015c", vectorE, 292, "6acfa429…53340"},
	} {
		e := envelope(t, v.token, v.receiver, v.key)
		q := signed(v.timestamp, v.nonce, v.signature)
		o, err := e.Open(q, push(v.encrypted))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sum := sha256.Sum256(o.Message)
		begin, end, _ := strings.Cut(v.digest, "…")
		if got := hex.EncodeToString(sum[:]); len(o.Message) != v.length || !strings.HasPrefix(got, begin) || !strings.HasSuffix(got, end) || o.Sender != "to" {
			t.Errorf("%s: %d bytes, %s, for %s", name, len(o.Message), got, o.Sender)
		}
		// While the key changes, the previous one opens what is sealed with it, and the answer is
		// sealed with the same.
		both := envelope(t, v.token, v.receiver, strings.Repeat("b", 43), v.key)
		if o, err = both.Open(q, push(v.encrypted)); err != nil || len(o.Message) != v.length {
			t.Fatalf("%s with the previous key: %v", name, err)
		}
		answer := o.Seal([]byte("success"), "1", "n")
		fields, err := parseFlat(answer)
		if err != nil {
			t.Fatalf("%s: the answer %s: %v", name, answer, err)
		}
		if back, err := e.Open(signed("1", "n", fields["MsgSignature"]), answer); err != nil || string(back.Message) != "success" {
			t.Errorf("%s: the answer opens to %q, %v", name, back.Message, err)
		}
		for what, c := range map[string]struct {
			e    *Envelope
			q    url.Values
			want error
		}{
			"another token":     {envelope(t, "other", v.receiver, v.key), q, ErrSignature},
			"another receiver":  {envelope(t, v.token, "wx0000000000000000", v.key), q, ErrReceiver},
			"another key":       {envelope(t, v.token, v.receiver, strings.Repeat("c", 43)), q, ErrDecrypt},
			"another timestamp": {e, signed("1", v.nonce, v.signature), ErrSignature},
			"no signature":      {e, signed(v.timestamp, v.nonce, ""), ErrSignature},
		} {
			if o, err := c.e.Open(c.q, push(v.encrypted)); !errors.Is(err, c.want) || len(o.Message) > 0 {
				t.Errorf("%s, %s: %v, want %v", name, what, err, c.want)
			}
		}
	}
}

// Vector B: the check of a callback's address.
func TestTheEchoOfTencentsDocumentIsAnswered(t *testing.T) {
	e := envelope(t, "QDG6eK", "wx5823bf96d3bd56c7", "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C")
	q := signed("1409659589", "263014780", "5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3")
	q.Set("echostr", vectorB)
	if got, err := e.Echo(q); err != nil || string(got) != "1616140317555161061" {
		t.Errorf("got %q, %v", got, err)
	}
	q.Set("echostr", "")
	if _, err := e.Echo(q); !errors.Is(err, ErrEnvelope) {
		t.Errorf("without echostr: %v", err)
	}
}

// The signature does not save from a flipped bit alone: with a signature made anew, only whole
// blocks that stay as they are open.
func TestAChangedPushIsNotAccepted(t *testing.T) {
	e := envelope(t, "AAAAA", "wx134c8103faa5a59e", strings.Repeat("A", 43))
	sealed, err := base64.StdEncoding.DecodeString(vectorE)
	if err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		i, bit := rand.N(len(sealed)), byte(1)<<rand.N(8)
		sealed[i] ^= bit
		if _, err := e.Open(signed("1715943329", "1590219412", "6c12a4205838198b8fa631b3220723bb07f1015c"), push(base64.StdEncoding.EncodeToString(sealed))); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d, bit %08b: %v", i, bit, err)
		}
		sealed[i] ^= bit
	}
}

// What is no push is refused without a word of it, and costs no more than its size.
func TestWhatIsNoPushIsRefused(t *testing.T) {
	e := envelope(t, "t", "r", keyK1)
	good := string(e.Seal([]byte("x"), "1", "n"))
	fields, err := parseFlat([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	q := signed("1", "n", fields["MsgSignature"])
	if _, err := e.Open(q, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"empty": "", "text": "CANARY", "JSON": `{"Encrypt":"x"}`, "another root": strings.ReplaceAll(good, "xml>", "html>"),
		"a document type": `<!DOCTYPE xml [<!ENTITY a "CANARY">]>` + good, "an entity": "<xml><Encrypt>&a;</Encrypt></xml>",
		"two roots": good + good, "garbage behind": good + "x", "half a tag behind": good + "<", "not closed": strings.TrimSuffix(good, "</xml>"),
		"deep": "<xml>" + strings.Repeat("<a>", 9) + strings.Repeat("</a>", 9) + "<Encrypt>x</Encrypt></xml>",
		"many": "<xml>" + strings.Repeat("<a/>", 10) + manyFields(100) + "</xml>", "a comment": strings.Replace(good, "<Encrypt>", "<!-- x --><Encrypt>", 1),
		"an attribute": strings.Replace(good, "<xml>", `<xml a="b">`, 1), "without content": "<xml><ToUserName>x</ToUserName></xml>", "too long": "<xml><Encrypt>" + strings.Repeat("A", MaxPush) + "</Encrypt></xml>",
	} {
		if _, err := e.Open(q, []byte(body)); !errors.Is(err, ErrEnvelope) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Signed, but not what a key has sealed.
	for name, encrypted := range map[string]string{
		"no base64": "!!!!", "half a block": base64.StdEncoding.EncodeToString(make([]byte, 24)), "garbage": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64)),
		"nothing": "====",
	} {
		if _, err := e.Open(signed("1", "n", e.Signature("1", "n", encrypted)), push(encrypted)); !errors.Is(err, ErrDecrypt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "short", strings.Repeat("a", 42) + "!", strings.Repeat("a", 44)} {
		if _, err := NewEnvelope(secret.New("t"), "r", secret.New(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the key %q: %v", bad, err)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("<f" + strings.Repeat("i", i) + ">x</f" + strings.Repeat("i", i) + ">")
	}
	return b.String()
}

// Neither the length that a sealed push claims nor what its XML is made of costs memory that its
// body did not: no allocation is above twice the body, whether the push opens or not.
func TestAPushCostsNoMoreThanItsSize(t *testing.T) {
	const size = 14 << 10 // twice that is the largest size that the runtime counts by itself
	e := envelope(t, "t", "r", keyK1, strings.Repeat("a", 43))
	allocationsAbove(0) // the first one makes more
	fill := func(begin, middle, end string) string {
		return begin + strings.Repeat(middle, (size-len(begin)-len(end))/len(middle)) + end
	}
	for name, body := range map[string]string{
		"opens":           string(e.Seal([]byte(strings.Repeat("x", size/2)), "1", "n")),
		"claims 4 GiB":    string(push(sealedAs(t, keyK1, 1<<32-1, strings.Repeat("x", size/2)))),
		"one long text":   fill("<xml><Encrypt>", "A", "</Encrypt></xml>"),
		"one long name":   fill("<xml><", "a", "/></xml>"),
		"one long value":  fill(`<xml a="`, "a", `"/>`),
		"attributes":      fill("<xml ", `a="" `, "/>"),
		"the declaration": fill("<?xml ", `a="" `, "?><xml/>"),
		"elements":        fill("<xml>", "<a/>", "</xml>"),
		"references":      fill("<xml><Encrypt>", "&#65;", "</Encrypt></xml>"),
		"an open section": fill("<xml><Encrypt><![CDATA[", "]", ""),
	} {
		query := signed("1", "n", "0000")
		if outer, err := parseEnvelope([]byte(body)); err == nil {
			query = signed("1", "n", e.Signature("1", "n", string(outer.encrypt)))
		}
		before := allocationsAbove(2 * uint64(len(body)))
		_, err := e.Open(query, []byte(body))
		if n := allocationsAbove(2*uint64(len(body))) - before; n > 0 || len(body) > size {
			t.Errorf("%s: %d allocations above twice its %d bytes", name, n, len(body))
		}
		if (err == nil) != (name == "opens") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sealedAs seals a message that claims to have length bytes, and is too short for that.
func sealedAs(t *testing.T, key string, length uint32, message string) string {
	t.Helper()
	aesKey, err := base64.StdEncoding.DecodeString(key + "=")
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(aesKey)
	if err != nil {
		t.Fatal(err)
	}
	text := binary.BigEndian.AppendUint32(make([]byte, 16), length)
	text = append(text, message...)
	padding := blockSize - len(text)%blockSize
	text = append(text, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, aesKey[:aes.BlockSize]).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text)
}

// allocationsAbove counts the allocations of the process so far that had more than size bytes.
func allocationsAbove(size uint64) (n uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	for i, count := range h.Counts {
		if h.Buckets[i] > float64(size) {
			n += count
		}
	}
	return n
}

// Every push says what it is about, in whichever words: those of a platform and those of a suite.
func TestPushesAreParsed(t *testing.T) {
	for text, want := range map[string]Push{
		"<xml><AppId>wxp</AppId><CreateTime>1413192605</CreateTime><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>ticket@@@x</ComponentVerifyTicket></xml>":                                {InfoType: PushTicket, Platform: "wxp", Order: 1413192605, Ticket: secret.New("ticket@@@x")},
		"<xml>\n<AppId>wxp</AppId><CreateTime>2</CreateTime><InfoType>authorized</InfoType><AuthorizerAppid>wxa</AuthorizerAppid><AuthorizationCode>c</AuthorizationCode><PreAuthCode>p</PreAuthCode></xml>\n": {InfoType: PushAuthorized, Platform: "wxp", Order: 2, Authorizer: "wxa", Code: secret.New("c")},
		"<xml><SuiteId>ww</SuiteId><InfoType>suite_ticket</InfoType><TimeStamp>3</TimeStamp><SuiteTicket>s</SuiteTicket></xml>":                                                                                {InfoType: PushSuiteTicket, Platform: "ww", Order: 3, Ticket: secret.New("s")},
		"<xml><SuiteId>ww</SuiteId><InfoType>create_auth</InfoType><TimeStamp>4</TimeStamp><AuthCode>c</AuthCode><ExtraInfo><AuthCode>no</AuthCode></ExtraInfo></xml>":                                         {InfoType: PushCreateAuth, Platform: "ww", Order: 4, Code: secret.New("c")},
		"<xml><SuiteId>ww</SuiteId><InfoType>cancel_auth</InfoType><TimeStamp>5</TimeStamp><AuthCorpId>wc</AuthCorpId></xml>":                                                                                  {InfoType: PushCancelAuth, Platform: "ww", Order: 5, Authorizer: "wc"},
		"<xml><AppId>wxp</AppId><CreateTime>6</CreateTime><InfoType>notify_third_fasteregister</InfoType><info><name>x</name></info></xml>":                                                                    {InfoType: "notify_third_fasteregister", Platform: "wxp", Order: 6},
	} {
		got, err := ParsePush([]byte(text))
		if err != nil || got.InfoType != want.InfoType || got.Platform != want.Platform || got.Order != want.Order || got.Authorizer != want.Authorizer ||
			!got.Ticket.Equal(want.Ticket) || !got.Code.Equal(want.Code) {
			t.Errorf("%.80s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "<xml></xml>", "<xml><InfoType>x</InfoType></xml>", "<xml><InfoType>x</InfoType><CreateTime>-1</CreateTime></xml>", "<xml><InfoType>x</InfoType><CreateTime>1e9</CreateTime></xml>"} {
		if _, err := ParsePush([]byte(bad)); !errors.Is(err, ErrPush) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzOpen feeds bodies that are signed and sealed as they should be around any text, and bodies that
// are not: what opens is what was sealed.
func FuzzOpen(f *testing.F) {
	e := envelope(f, "t", "r", keyK1, strings.Repeat("a", 43))
	for _, v := range []string{vectorA, vectorB, vectorB2, vectorC, vectorD, vectorE, vectorEreply} {
		f.Add(push(v))
	}
	f.Add([]byte("<xml><Encrypt>&#65;</Encrypt></xml>"))
	f.Add([]byte("<?xml version='1.0' encoding='gbk'?><xml><Encrypt>A</Encrypt></xml>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		q := signed("1", "n", "0000")
		if outer, err := parseEnvelope(body); err == nil {
			q = signed("1", "n", e.Signature("1", "n", string(outer.encrypt)))
		}
		if o, err := e.Open(q, body); err == nil && len(o.Message) > len(body) {
			t.Errorf("%d bytes opened to %d", len(body), len(o.Message))
		}
		_, _ = ParsePush(body)
		sealed := e.Seal(body, "1", "n")
		if len(sealed) > MaxPush {
			return
		}
		fields, err := parseFlat(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := e.Open(signed("1", "n", fields["MsgSignature"]), sealed); err != nil || !bytes.Equal(o.Message, body) {
			t.Errorf("sealed and opened: %q, %v", o.Message, err)
		}
	})
}
