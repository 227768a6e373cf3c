package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Errors of an [Envelope]. They hold nothing of what came. The number behind each is the one of
// Tencent's samples, which users quote.
var (
	ErrSignature = errors.New("wechat: the push is not signed with this token (-40001)")
	ErrEnvelope  = errors.New("wechat: the push is no envelope with encrypted content (-40002)")
	ErrDecrypt   = errors.New("wechat: the push cannot be decrypted with these keys (-40007)")
	ErrReceiver  = errors.New("wechat: the push is for another receiver (-40005)")
)

const (
	// MaxPush is the longest body of a push that [Envelope.Open] looks at, in bytes.
	MaxPush = 64 << 10

	keyLength = 43 // of an EncodingAESKey, in characters
	blockSize = 32 // of the padding; that of AES is 16
	headSize  = 16 + 4
)

// Envelope opens what WeChat and WeCom push to a callback address, and seals the answers [T
// Before_Develop/message_push, W 90968]. It is immutable, so safe for concurrent use.
type Envelope struct {
	token    secret.String
	receiver string
	keys     [][]byte // AES, the current one first
}

// NewEnvelope returns an envelope. token is the callback's token. receiver is the one that pushes
// must be for: a platform's appid, a suite's id, a corpid; "" for the suite of a person. keys are the
// EncodingAESKeys, 43 characters each: the current one, and the previous one while a change spreads.
// The error says which is wrong, and does not repeat it.
func NewEnvelope(token secret.String, receiver string, keys ...secret.String) (*Envelope, error) {
	if token.Empty() {
		return nil, errors.New("wechat: the token of the callback is empty")
	}
	if len(keys) == 0 {
		return nil, errors.New("wechat: the callback has no EncodingAESKey")
	}
	e := &Envelope{token: token, receiver: receiver}
	for i, k := range keys {
		// The last character of official keys has bits that no byte needs, so not Strict.
		key, err := base64.StdEncoding.DecodeString(k.Reveal() + "=")
		if err != nil || len(k.Reveal()) != keyLength {
			return nil, fmt.Errorf("wechat: EncodingAESKey %d of %d is not one of %d letters and digits", i+1, len(keys), keyLength)
		}
		e.keys = append(e.keys, key)
	}
	return e, nil
}

// Opened is a push as it was meant.
type Opened struct {
	// Message is the text, to the byte.
	Message []byte
	// Sender is who the outer envelope says that it is for: ToUserName of a message, AppId of an
	// event of a platform.
	Sender string

	envelope *Envelope
	key      []byte
}

// Open opens the body of a push. query is that of the request: timestamp, nonce and msg_signature.
// The parameter signature does not cover the body and is not looked at. The signature is checked
// first, in constant time, and the receiver last. body is not changed.
func (e *Envelope) Open(query url.Values, body []byte) (Opened, error) {
	if len(body) > MaxPush {
		return Opened{}, ErrEnvelope
	}
	outer, err := parseEnvelope(body)
	if err != nil {
		return Opened{}, err
	}
	o, err := e.open(query, outer.encrypt)
	o.Sender = outer.sender
	return o, err
}

// Echo answers the check of a callback's address, a GET with the parameter echostr: the text to
// return as it is, without quotes or a newline, within a second [T W 91116].
func (e *Envelope) Echo(query url.Values) ([]byte, error) {
	echo := query.Get("echostr")
	if echo == "" || len(echo) > MaxPush {
		return nil, ErrEnvelope
	}
	o, err := e.open(query, []byte(echo))
	return o.Message, err
}

func (e *Envelope) open(query url.Values, encrypted []byte) (Opened, error) {
	want := e.Signature(query.Get("timestamp"), query.Get("nonce"), string(encrypted))
	if subtle.ConstantTimeCompare([]byte(want), []byte(query.Get("msg_signature"))) != 1 {
		return Opened{}, ErrSignature
	}
	sealed := make([]byte, base64.StdEncoding.DecodedLen(len(encrypted)))
	n, err := base64.StdEncoding.Decode(sealed, encrypted)
	if err != nil || n == 0 || n%aes.BlockSize != 0 {
		return Opened{}, ErrDecrypt
	}
	failed := ErrDecrypt
	for _, key := range e.keys {
		// Each key decrypts a copy, but the last one, which nothing needs after it.
		text := sealed[:n]
		if len(e.keys) > 1 {
			text = bytes.Clone(text)
		}
		message, receiver, ok := decrypt(key, text)
		switch {
		case !ok:
			continue
		case receiver != e.receiver:
			failed = ErrReceiver // the other key finds garbage
			continue
		}
		return Opened{Message: message, envelope: e, key: key}, nil
	}
	return Opened{}, failed
}

// Signature returns what msg_signature must be, and what a sealed answer has.
func (e *Envelope) Signature(timestamp, nonce, encrypted string) string {
	parts := []string{e.token.Reveal(), timestamp, nonce, encrypted}
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// Seal makes an encrypted answer of a message, with the key that opened the push: while a change
// of the key spreads, WeChat may not know the other one yet [T Technical_Plan]. timestamp is in Unix
// seconds.
func (o Opened) Seal(message []byte, timestamp, nonce string) []byte {
	return o.envelope.seal(o.key, message, timestamp, nonce)
}

// Seal makes a push or an answer with the current key: as WeChat does it, for simulators and tests.
func (e *Envelope) Seal(message []byte, timestamp, nonce string) []byte {
	return e.seal(e.keys[0], message, timestamp, nonce)
}

func (e *Envelope) seal(key, message []byte, timestamp, nonce string) []byte {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	encrypted := encrypt(key, salt, message, e.receiver)
	return fmt.Appendf(nil, "<xml><Encrypt><![CDATA[%s]]></Encrypt><MsgSignature><![CDATA[%s]]></MsgSignature><TimeStamp>%s</TimeStamp><Nonce><![CDATA[%s]]></Nonce></xml>",
		encrypted, e.Signature(timestamp, nonce, encrypted), onlyDigits(timestamp), strings.ReplaceAll(nonce, "]]>", ""))
}

// onlyDigits drops what is no digit: the text is a part of XML.
func onlyDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// encrypt seals salt ‖ length ‖ message ‖ receiver.
func encrypt(key, salt, message []byte, receiver string) string {
	text := append(bytes.Clone(salt), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(text[16:], uint32(len(message)))
	text = append(append(text, message...), receiver...)
	pad := blockSize - len(text)%blockSize
	text = append(text, bytes.Repeat([]byte{byte(pad)}, pad)...)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("wechat: a key of another length") // NewEnvelope has checked it
	}
	cipher.NewCBCEncrypter(block, key[:aes.BlockSize]).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text)
}

// decrypt opens text in place, whose length is that of whole blocks. ok is false if what comes out
// is not in the shape that encrypt gives it.
func decrypt(key, text []byte) (message []byte, receiver string, ok bool) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, "", false
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > blockSize || pad > len(text) || bytes.Count(text[len(text)-pad:], text[len(text)-1:]) != pad {
		return nil, "", false
	}
	text = text[:len(text)-pad]
	if len(text) < headSize {
		return nil, "", false
	}
	length := binary.BigEndian.Uint32(text[16:])
	if text = text[headSize:]; uint64(length) > uint64(len(text)) {
		return nil, "", false
	}
	return text[:length:length], string(text[length:]), true
}

// outerEnvelope is the XML around encrypted content.
type outerEnvelope struct {
	sender  string // AppId or ToUserName
	encrypt []byte
}

func parseEnvelope(body []byte) (outerEnvelope, error) {
	fields, err := parseFlat(body)
	if err != nil || fields["Encrypt"] == "" {
		return outerEnvelope{}, ErrEnvelope
	}
	sender := fields["ToUserName"]
	if sender == "" {
		sender = fields["AppId"]
	}
	return outerEnvelope{sender, []byte(fields["Encrypt"])}, nil
}

const (
	maxDepth  = 8
	maxFields = 64
)

// hasAttributes reports whether a tag of text may have one. No push has any, and the decoder would
// keep all of them at once: ten times as much as text, before anything has been verified.
func hasAttributes(text []byte) bool {
	for {
		_, tag, more := bytes.Cut(text, []byte("<"))
		if !more {
			return false
		}
		end := []byte(">")
		isElement := true
		switch {
		case bytes.HasPrefix(tag, []byte("![CDATA[")):
			end, isElement = []byte("]]>"), false
		case bytes.HasPrefix(tag, []byte("?")):
			end, isElement = []byte("?>"), false
		}
		tag, text, _ = bytes.Cut(tag, end)
		if isElement && bytes.ContainsRune(tag, '=') {
			return true
		}
	}
}

// errXML says that a text is not the XML of a push.
var errXML = errors.New("not the XML of a push")

// parseFlat reads the fields of <xml>, those without elements in them. A document type, which may
// define entities, is refused, as are a second root, attributes, and what is nested deeper than any
// push. Of a field that is there twice, the first one counts.
func parseFlat(text []byte) (map[string]string, error) {
	if hasAttributes(text) {
		return nil, errXML
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	fields := map[string]string{}
	var path []string
	var value strings.Builder
	done, leaf := false, false
	for {
		token, err := d.RawToken()
		if err == io.EOF {
			if !done {
				return nil, errXML
			}
			return fields, nil
		}
		if err != nil {
			return nil, errXML
		}
		switch t := token.(type) {
		case xml.StartElement:
			if done || len(path) == maxDepth || len(fields) > maxFields || len(path) == 0 && t.Name.Local != "xml" {
				return nil, errXML
			}
			path = append(path, t.Name.Local)
			leaf = true
			value.Reset()
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != t.Name.Local {
				return nil, errXML
			}
			if len(path) == 2 && leaf {
				if _, twice := fields[t.Name.Local]; !twice {
					fields[t.Name.Local] = value.String()
				}
			}
			path, leaf = path[:len(path)-1], false
			done = len(path) == 0
		case xml.CharData:
			if len(path) == 2 && leaf {
				value.Write(t)
			} else if len(path) == 0 && len(bytes.TrimSpace(t)) > 0 {
				return nil, errXML
			}
		case xml.ProcInst:
			if done || len(path) > 0 || t.Target != "xml" {
				return nil, errXML
			}
		default: // a document type, or a comment, which no push has
			return nil, errXML
		}
	}
}
