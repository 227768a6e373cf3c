package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// part is what one platform's image is made of.
type part struct {
	arch  string
	files map[string]file
	sbom  []byte
}

// newIndex is the image for all platforms. An SBOM is attached as BuildKit does it, by a manifest for no
// platform in the same index, so that it goes wherever the image is copied; it names its image as its
// subject, too, so that a registry lists it among the referrers.
func newIndex(src source, parts []part) (v1.ImageIndex, error) {
	var images, attestations []mutate.IndexAddendum
	for _, p := range parts {
		image, err := newImage(src, p)
		if err != nil {
			return nil, err
		}
		about, err := partial.Descriptor(image)
		if err != nil {
			return nil, err
		}
		platform := &v1.Platform{OS: "linux", Architecture: p.arch}
		images = append(images, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		attestation, err := newAttestation(*about, p.sbom)
		if err != nil {
			return nil, err
		}
		attestations = append(attestations, mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{
				"vnd.docker.reference.type":   "attestation-manifest",
				"vnd.docker.reference.digest": about.Digest.String(),
			},
		}})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), append(images, attestations...)...)
	return mutate.Annotations(index, src.labels()).(v1.ImageIndex), nil
}

func newImage(src source, p part) (v1.Image, error) {
	archive, err := layerTar(p.files, src.created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil },
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: src.created}
	image, err := mutate.ConfigFile(emptyImage(), &v1.ConfigFile{
		OS: "linux", Architecture: p.arch, Created: created, Config: src.config(),
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, History: v1.History{Created: created, CreatedBy: "make image"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, src.labels()).(v1.Image), nil
}

func emptyImage() v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// newAttestation holds an SBOM as an in-toto statement about an image.
func newAttestation(about v1.Descriptor, sbom []byte) (v1.Image, error) {
	const inToto, predicate = "application/vnd.in-toto+json", "https://spdx.dev/Document"
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	statement, err := json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{"https://in-toto.io/Statement/v0.1", predicate,
		[]subject{{"_", map[string]string{about.Digest.Algorithm: about.Digest.Hex}}}, sbom})
	if err != nil {
		return nil, err
	}
	image, err := mutate.ConfigFile(emptyImage(), &v1.ConfigFile{
		OS: "unknown", Architecture: "unknown", RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:       static.NewLayer(statement, inToto),
		Annotations: map[string]string{"in-toto.io/predicate-type": predicate},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Subject(image, about).(v1.Image), nil
}

// layerTar writes files, and the directories they are in, sorted and with one time.
func layerTar(files map[string]file, created time.Time) ([]byte, error) {
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
		if _, err := w.Write(files[strings.TrimSuffix(name, "/")].data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// compress is how a layer is compressed: with no name and no time in its header.
func compress(data []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a level that exists
	_, _ = w.Write(data)                                    // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
