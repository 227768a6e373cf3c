package wechattest

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"sync"
)

// Code returns the picture that the calls for the QR code of a mini program answer with: a JPEG,
// the same for every page and every scene, in which no scanner finds a code.
func Code() []byte { return bytes.Clone(code()) }

var code = sync.OnceValue(func() []byte {
	const size, cell = 430, 10 // the default width
	img := image.NewGray(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			// Irregular cells, and a white border.
			i, j := x/cell, y/cell
			if i == 0 || j == 0 || i == size/cell-1 || j == size/cell-1 || (i*i+3*i*j+7*j*j)%5 < 3 {
				img.SetGray(x, y, color.Gray{Y: 0xff})
			}
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
})

// codeImage serves getwxacode, getwxacodeunlimit and createwxaqrcode: a picture, or JSON that says
// why not.
func codeImage(c *call) reply {
	switch {
	case len(c.body) == 0:
		return c.fail(44002)
	case !json.Valid(c.body):
		return c.fail(47001)
	}
	return reply{status: http.StatusOK, header: http.Header{"Content-Type": {"image/jpeg"}}, body: Code()}
}
