package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Where the pods find what is simulated, on the node.
const (
	reports   = address + ":8070"
	upstream  = address + ":8090"
	store     = address + ":6379"
	pause     = "registry.example.com/pause:1"
	appid     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef"
)

// The app asks the sidecar as the examples say: by the sidecar's own API, or as it would ask WeChat.
const (
	token  = "http://127.0.0.1:7200/v1/apps/shop/token"
	dropIn = "api.weixin.qq.com/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + appSecret
)

// entrypoints are those of the images. The examples name the images, and run unchanged.
var entrypoints = map[string][]string{
	pause:                               {"/app"},
	"registry.example.com/web:1":        {"/app", "-url", token, "-every", "50ms", "-linger", "4s", "-listen", ":8080", "-report", "http://" + reports},
	"registry.example.com/statistics:1": {"/app", "-url", token, "-report", "http://" + reports},
	"registry.example.com/pinned:1":     {"/app", "-url", "https://" + dropIn, "-every", "1s", "-report", "http://" + reports},
	"registry.example.com/legacy:1":     {"/app", "-url", "http://" + dropIn, "-every", "1s", "-report", "http://" + reports},
}

// buildImages writes into dir what the node needs of this repository: the archives of the images,
// and the simulator.
func buildImages(ctx context.Context, dir string) error {
	app := filepath.Join(dir, "app")
	for _, build := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", app, "./app"},
		{"go", "build", "-C", filepath.Join("..", ".."), "-trimpath", "-o", filepath.Join(dir, "simulator"), "./integration/simulator"},
		{"go", "-C", "..", "run", "./image", "-version", "v0.1.0", "-out", dir, "build"}, // the version that the manifests name
	} {
		cmd := exec.CommandContext(ctx, build[0], build[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", build, err, out)
		}
	}
	program, err := os.ReadFile(app)
	if err != nil {
		return err
	}
	images := map[name.Tag]v1.Image{}
	for image, entrypoint := range entrypoints {
		tag, err := name.NewTag(image)
		if err != nil {
			return err
		}
		if images[tag], err = imageOf(program, entrypoint); err != nil {
			return err
		}
	}
	return tarball.MultiWriteToFile(filepath.Join(dir, "apps.tar"), images)
}

// imageOf returns an image with one file, /app.
func imageOf(program []byte, entrypoint []string) (v1.Image, error) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config.Entrypoint = "linux", runtime.GOARCH, entrypoint
	return mutate.ConfigFile(image, file)
}
