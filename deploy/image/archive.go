package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes the image as an OCI layout into a tarball. The layout has one entry, so that
// no tool asks which one is meant.
func writeArchive(archive string, src source, name string, parts []part) error {
	index, err := newIndex(src, parts)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wxtoken-layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	to, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	if err := to.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": src.tag(),
		"io.containerd.image.name":          name + ":" + src.tag(),
	})); err != nil {
		return err
	}
	files, err := readDir(dir)
	if err != nil {
		return err
	}
	out, err := tarOf(files, src.created)
	if err != nil {
		return err
	}
	return os.WriteFile(archive, out, 0o644)
}

// readDir returns the files below dir, all with the same mode.
func readDir(dir string) (map[string]file, error) {
	files, tree := map[string]file{}, os.DirFS(dir)
	return files, fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		files[name] = file{data, 0o644}
		return err
	})
}

// tarOf packs files, and the directories they are in: sorted, of root, and all of one time.
func tarOf(files map[string]file, created time.Time) ([]byte, error) {
	entries := map[string]*tar.Header{}
	for name, f := range files {
		entries[name] = &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.mode, Size: int64(len(f.data)), ModTime: created}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			entries[dir] = &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: created}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := w.WriteHeader(entries[name]); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name].data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// readTar returns the regular files of a tar, and the headers of all entries in their order.
func readTar(in io.Reader) (map[string]file, []*tar.Header, error) {
	files := map[string]file{}
	var headers []*tar.Header
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, headers, nil
		} else if err != nil {
			return nil, nil, err
		}
		headers = append(headers, h)
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(r)
			if err != nil {
				return nil, nil, err
			}
			files[h.Name] = file{content, h.Mode}
		}
	}
}
