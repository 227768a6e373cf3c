package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Keys seal and open: AES-256-GCM. Immutable, so safe for concurrent use.
type Keys struct{ aeads []cipher.AEAD }

// keySize is that of AES-256, in bytes.
const keySize = 32

// ParseKeys reads a key file: a key on each line, 32 bytes in base64, as of
// `openssl rand -base64 32`. The first one seals, all open: to change the key, put the new one on
// top, and take the old one away once every record has been sealed again. Lines that are empty or
// begin with # are skipped. The error names the line and repeats nothing of it.
func ParseKeys(file secret.String) (Keys, error) {
	var k Keys
	n := 0
	for line := range strings.Lines(file.Reveal()) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keySize {
			return Keys{}, fmt.Errorf("line %d is not a key of %d bytes in base64: make one with openssl rand -base64 %d", n, keySize, keySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return Keys{}, fmt.Errorf("line %d: %w", n, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return Keys{}, fmt.Errorf("line %d: %w", n, err)
		}
		k.aeads = append(k.aeads, aead)
	}
	if len(k.aeads) == 0 {
		return Keys{}, fmt.Errorf("there is no key in it: make one with openssl rand -base64 %d", keySize)
	}
	return k, nil
}

// sealVersion begins whatever is sealed.
const sealVersion = 1

func (k Keys) seal(body, binding []byte) []byte {
	aead := k.aeads[0]
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return aead.Seal(append([]byte{sealVersion}, nonce...), nonce, body, binding)
}

// first has only the key that seals.
func (k Keys) first() Keys { return Keys{k.aeads[:1]} }

func (k Keys) open(sealed, binding []byte) ([]byte, error) {
	for _, aead := range k.aeads {
		size := 1 + aead.NonceSize()
		if len(sealed) < size || sealed[0] != sealVersion {
			break
		}
		if body, err := aead.Open(nil, sealed[1:size], sealed[size:], binding); err == nil {
			return body, nil
		}
	}
	return nil, ErrSealed
}

func digest(s secret.String) string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}
