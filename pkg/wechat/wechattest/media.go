package wechattest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// An Upload is what arrived in the field "media" of a multipart body.
type Upload struct {
	// Size is in bytes, SHA256 in lower-case hex digits.
	Size     int64
	SHA256   string
	Filename string
	// Type is the query parameter of that name.
	Type string
}

// Uploaded returns the upload that was answered with a media_id and reports whether there is one.
func (s *Server) Uploaded(mediaID string) (Upload, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.media[mediaID]
	return u, ok
}

// readUpload reads a multipart body to its end and keeps the digest of the part "media"; a zero
// Upload if there is none.
func readUpload(r *http.Request) (*Upload, error) {
	up := &Upload{Type: r.URL.Query().Get("type")}
	parts, err := r.MultipartReader()
	if err != nil {
		return up, nil // no boundary: no field either
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if part.FormName() != "media" {
			continue
		}
		sum := sha256.New()
		if up.Size, err = io.Copy(sum, part); err != nil {
			return nil, err
		}
		up.SHA256, up.Filename = hex.EncodeToString(sum.Sum(nil)), part.FileName()
	}
	_, err = io.Copy(io.Discard, r.Body) // the epilogue
	return up, err
}

func (s *Server) uploadMedia(c *call) reply {
	if c.upload == nil || c.upload.Size == 0 {
		return c.fail(44001)
	}
	id := "up-" + randomText(60)
	s.media[id] = *c.upload
	created := fmt.Sprint(c.now.Unix())
	if c.corp {
		created = quote(created) // as its page has it
	}
	return c.success(fmt.Sprintf(`"type":%s,"media_id":%q,"created_at":%s`, quote(c.upload.Type), id, created))
}

// mediaGet serves the media_ids "size-N", N bytes of [MediaBody] as a picture, and "video", a JSON
// object. What was uploaded cannot be downloaded.
func mediaGet(c *call) reply {
	id := c.query.Get("media_id")
	if id == "video" {
		return c.success(`"video_url":"http://video.example/sim"`)
	}
	digits, ok := strings.CutPrefix(id, "size-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 {
		return c.fail(44001)
	}
	return reply{
		status: http.StatusOK,
		header: http.Header{
			"Content-Type":        {"image/jpeg"},
			"Content-Disposition": {`attachment; filename="` + id + `.jpg"`},
		},
		media: n,
	}
}

// MediaBody returns the n bytes that /cgi-bin/media/get?media_id=size-n answers with: the same
// every time, and no two stretches of 16 bytes alike within 64 KiB.
func MediaBody(n int64) io.Reader { return io.LimitReader(new(pattern), n) }

// pattern is an endless sequence in which the offset shows.
type pattern struct{ offset uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		// Alternately the low and the high byte of a counter of pairs.
		pair := p.offset / 2
		b[i] = byte(pair >> (8 * (p.offset % 2)))
		p.offset++
	}
	return len(b), nil
}
