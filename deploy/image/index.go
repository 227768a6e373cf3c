package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"

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

// Names by which BuildKit attaches an SBOM, and which the check reads.
const (
	referenceDigest = "vnd.docker.reference.digest"
	predicateSPDX   = "https://spdx.dev/Document"
)

// newIndex returns the image for all platforms. An SBOM is attached as BuildKit does it, by a
// manifest for no platform in the same index, so that it goes wherever the image is copied; it
// names its image as its subject, too, so that a registry lists it among the referrers.
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
		attestation, err := newAttestation(src, *about, p.sbom)
		if err != nil {
			return nil, err
		}
		images = append(images, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: p.arch},
		}})
		attestations = append(attestations, mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", referenceDigest: about.Digest.String()},
		}})
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	index = mutate.AppendManifests(index, append(images, attestations...)...)
	return mutate.Annotations(index, src.labels()).(v1.ImageIndex), nil
}

func newImage(src source, p part) (v1.Image, error) {
	plain, err := tarOf(p.files, src.created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(plain)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
	if err != nil {
		return nil, err
	}
	image, err := oneLayer(src, v1.ConfigFile{OS: "linux", Architecture: p.arch, Config: src.config()}, mutate.Addendum{Layer: layer})
	if err != nil {
		return nil, err
	}
	return ordinary{mutate.Annotations(image, src.labels()).(v1.Image)}, nil
}

// newAttestation returns an SBOM as an in-toto statement about an image.
func newAttestation(src source, about v1.Descriptor, sbom []byte) (v1.Image, error) {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	statement, err := json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{"https://in-toto.io/Statement/v0.1", predicateSPDX,
		[]subject{{"_", map[string]string{about.Digest.Algorithm: about.Digest.Hex}}}, sbom})
	if err != nil {
		return nil, err
	}
	image, err := oneLayer(src, v1.ConfigFile{OS: "unknown", Architecture: "unknown"}, mutate.Addendum{
		Layer:       static.NewLayer(statement, "application/vnd.in-toto+json"),
		Annotations: map[string]string{"in-toto.io/predicate-type": predicateSPDX},
	})
	if err != nil {
		return nil, err
	}
	return ordinary{mutate.Subject(image, about).(v1.Image)}, nil
}

// ordinary keeps go-containerregistry from describing an image as an artifact, as no builder of
// images does.
type ordinary struct{ v1.Image }

func (ordinary) ArtifactType() (string, error) { return "", nil }

// oneLayer returns an OCI image of one layer.
func oneLayer(src source, config v1.ConfigFile, layer mutate.Addendum) (v1.Image, error) {
	config.RootFS.Type, config.Created = "layers", v1.Time{Time: src.created}
	layer.History = v1.History{Created: config.Created, CreatedBy: "make image"}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &config)
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, layer)
}
