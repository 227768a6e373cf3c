package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// part is what one platform's image is made of.
type part struct {
	arch  string
	files map[string]file
	sbom  []byte
}

// blobs are the contents of an OCI layout, by digest.
type blobs map[v1.Hash][]byte

// put adds a blob and returns its descriptor.
func (b blobs) put(data []byte, mediaType types.MediaType) v1.Descriptor {
	digest := sha256Of(data)
	b[digest] = data
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(data)), Digest: digest}
}

func (b blobs) putJSON(v any, mediaType types.MediaType) (v1.Descriptor, error) {
	data, err := json.Marshal(v)
	return b.put(data, mediaType), err
}

func sha256Of(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// putIndex adds the image for all platforms. An SBOM is attached as BuildKit does it, by a manifest for
// no platform in the same index, so that it goes wherever the image is copied; it names its image as
// its subject, too, so that a registry lists it among the referrers.
func (b blobs) putIndex(src source, parts []part) (v1.Descriptor, error) {
	var images, attestations []v1.Descriptor
	for _, p := range parts {
		image, err := b.putImage(src, p)
		if err != nil {
			return v1.Descriptor{}, err
		}
		attestation, err := b.putAttestation(image, p.sbom)
		if err != nil {
			return v1.Descriptor{}, err
		}
		image.Platform = &v1.Platform{OS: "linux", Architecture: p.arch}
		attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
		attestation.Annotations = map[string]string{
			"vnd.docker.reference.type":   "attestation-manifest",
			"vnd.docker.reference.digest": image.Digest.String(),
		}
		images, attestations = append(images, image), append(attestations, attestation)
	}
	return b.putJSON(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: append(images, attestations...), Annotations: src.labels(),
	}, types.OCIImageIndex)
}

func (b blobs) putImage(src source, p part) (v1.Descriptor, error) {
	plain, err := tarOf(p.files, src.created)
	if err != nil {
		return v1.Descriptor{}, err
	}
	layer := b.put(compress(plain), types.OCILayer)
	created := v1.Time{Time: src.created}
	config, err := b.putJSON(v1.ConfigFile{
		OS: "linux", Architecture: p.arch, Created: created, Config: src.config(),
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{sha256Of(plain)}},
		History: []v1.History{{Created: created, CreatedBy: "make image"}},
	}, types.OCIConfigJSON)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return b.putJSON(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: config, Layers: []v1.Descriptor{layer}, Annotations: src.labels(),
	}, types.OCIManifestSchema1)
}

// putAttestation adds an SBOM as an in-toto statement about an image.
func (b blobs) putAttestation(about v1.Descriptor, sbom []byte) (v1.Descriptor, error) {
	const predicate = "https://spdx.dev/Document"
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	layer, err := b.putJSON(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{"https://in-toto.io/Statement/v0.1", predicate,
		[]subject{{"_", map[string]string{about.Digest.Algorithm: about.Digest.Hex}}}, sbom}, "application/vnd.in-toto+json")
	if err != nil {
		return v1.Descriptor{}, err
	}
	layer.Annotations = map[string]string{"in-toto.io/predicate-type": predicate}
	config, err := b.putJSON(v1.ConfigFile{
		OS: "unknown", Architecture: "unknown", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer.Digest}},
	}, types.OCIConfigJSON)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return b.putJSON(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: config, Layers: []v1.Descriptor{layer}, Subject: &about,
	}, types.OCIManifestSchema1)
}

// compress is gzip with no name and no time in its header.
func compress(data []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a level that exists
	_, _ = w.Write(data)                                    // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
