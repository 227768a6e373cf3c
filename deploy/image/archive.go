package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes the image as an OCI layout into a tarball. The layout has one entry, so that no
// tool asks which one is meant.
func writeArchive(archive string, src source, name string, parts []part) error {
	contents := blobs{}
	entry, err := contents.putIndex(src, parts)
	if err != nil {
		return err
	}
	entry.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": src.version,
		"io.containerd.image.name":          name + ":" + src.version,
	}
	top, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{entry},
	})
	if err != nil {
		return err
	}
	files := map[string]file{
		"oci-layout": {[]byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644},
		"index.json": {top, 0o644},
	}
	for digest, data := range contents {
		files[blobPath(digest)] = file{data, 0o644}
	}
	out, err := tarOf(files, src.created)
	if err != nil {
		return err
	}
	return os.WriteFile(archive, out, 0o644)
}

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

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
func readTar(data []byte) (map[string]file, []*tar.Header, error) {
	files := map[string]file{}
	var headers []*tar.Header
	for r := tar.NewReader(bytes.NewReader(data)); ; {
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
