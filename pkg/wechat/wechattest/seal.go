package wechattest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
)

// sealText encrypts a message as WeChat does: 16 random bytes, the length in 4 bytes, the message
// and the receiver, padded to whole blocks of 32 bytes. It shares no code with package wechat, so
// that neither can hide a mistake of the other.
func sealText(aesKey, receiver, random, message string) (string, error) {
	key, err := base64.StdEncoding.DecodeString(aesKey + "=")
	if err != nil || len(key) != 32 {
		return "", fmt.Errorf("wechattest: an EncodingAESKey of %d characters", len(aesKey))
	}
	n := len(message)
	full := random + string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + message + receiver
	pad := 32 - len(full)%32 // never 0
	full += strings.Repeat(string(rune(pad)), pad)
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("wechattest: %w", err)
	}
	sealed := make([]byte, len(full))
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(sealed, []byte(full))
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// signText is the msg_signature of an encrypted text.
func signText(token, timestamp, nonce, sealed string) string {
	four := []string{token, timestamp, nonce, sealed}
	sort.Strings(four)
	digest := sha1.Sum([]byte(four[0] + four[1] + four[2] + four[3]))
	return hex.EncodeToString(digest[:])
}
