package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes index as an OCI layout into a tarball. The layout has one entry, so that no tool
// asks which one is meant.
func writeArchive(archive string, index v1.ImageIndex, src source, name string) error {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	put := func(digest v1.Hash, data []byte) { files[blobPath(digest)] = data }
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		if err := imageBlobs(image, put); err != nil {
			return err
		}
	}
	raw, err := index.RawManifest()
	if err != nil {
		return err
	}
	entry, err := partial.Descriptor(index)
	if err != nil {
		return err
	}
	put(entry.Digest, raw)
	entry.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": src.version,
		"io.containerd.image.name":          name + ":" + src.version,
	}
	files["index.json"], err = json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*entry},
	})
	if err != nil {
		return err
	}
	entries := make(map[string]file, len(files))
	for path, data := range files {
		entries[path] = file{data, 0o644}
	}
	out, err := layerTar(entries, src.created)
	if err != nil {
		return err
	}
	return os.WriteFile(archive, out, 0o644)
}

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// imageBlobs gives put the manifest, the configuration and the layers of image.
func imageBlobs(image v1.Image, put func(v1.Hash, []byte)) error {
	manifest, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	put(digest, manifest)
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	if digest, err = image.ConfigName(); err != nil {
		return err
	}
	put(digest, config)
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if digest, err = l.Digest(); err != nil {
			return err
		}
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		put(digest, data)
	}
	return nil
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
