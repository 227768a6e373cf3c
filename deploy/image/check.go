package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

// image is one platform's, unpacked.
type image struct {
	digest v1.Hash
	arch   string
	size   int64 // manifest, configuration and layer, as they are transferred
	config v1.ConfigFile
	files  map[string]file
	sbom   []byte
}

// readArchive reads a tarball back: the digest of its index, and its images. Every blob must be
// what its name says.
func readArchive(archive string) (digest v1.Hash, images []image, err error) {
	in, err := os.Open(archive)
	if err != nil {
		return digest, nil, err
	}
	defer in.Close()
	files, _, err := readTar(in)
	if err != nil {
		return digest, nil, err
	}
	for name, f := range files {
		if sum, isBlob := strings.CutPrefix(name, "blobs/sha256/"); isBlob && sum != hexSHA256(f.data) {
			return digest, nil, fmt.Errorf("blob %s is another one", sum)
		}
	}
	dir, err := os.MkdirTemp("", "wxtoken-layout")
	if err != nil {
		return digest, nil, err
	}
	defer os.RemoveAll(dir)
	if err := unpack(files, dir); err != nil {
		return digest, nil, err
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return digest, nil, err
	}
	entries, err := partial.Manifests(top)
	if err != nil {
		return digest, nil, err
	}
	if len(entries) != 1 {
		return digest, nil, fmt.Errorf("index.json has %d entries, want 1", len(entries))
	}
	index, ok := entries[0].(v1.ImageIndex)
	if !ok {
		return digest, nil, errors.New("index.json does not name an index")
	}
	if digest, err = index.Digest(); err != nil {
		return digest, nil, err
	}
	images, err = readImages(index)
	return digest, images, err
}

// readImages unpacks what is in the index: images first, then an SBOM for each.
func readImages(index v1.ImageIndex) ([]image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var images []image
	for _, d := range manifest.Manifests {
		oci, err := index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		if about, ok := d.Annotations[referenceDigest]; ok {
			at := slices.IndexFunc(images, func(i image) bool { return i.digest.String() == about })
			if at < 0 {
				return nil, fmt.Errorf("%s is an SBOM of no image here", d.Digest)
			}
			images[at].sbom, err = readAttestation(oci, images[at].digest)
		} else {
			var i image
			i, err = readImage(oci, d)
			images = append(images, i)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	return images, nil
}

// content returns what is in the only layer of an image, and the image's manifest.
func content(oci v1.Image) ([]byte, *v1.Manifest, error) {
	manifest, err := oci.Manifest()
	if err != nil {
		return nil, nil, err
	}
	layers, err := oci.Layers()
	if err != nil {
		return nil, nil, err
	}
	if len(layers) != 1 {
		return nil, nil, fmt.Errorf("%d layers, want 1", len(layers))
	}
	in, err := layers[0].Uncompressed()
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	return data, manifest, err
}

// readAttestation returns a statement, which must be about an image.
func readAttestation(oci v1.Image, about v1.Hash) ([]byte, error) {
	statement, manifest, err := content(oci)
	if err == nil && (manifest.Subject == nil || manifest.Subject.Digest != about) {
		err = errors.New("another image is its subject")
	}
	return statement, err
}

// readImage unpacks an image.
func readImage(oci v1.Image, d v1.Descriptor) (image, error) {
	if err := validate.Image(oci); err != nil {
		return image{}, err
	}
	config, err := oci.ConfigFile()
	if err != nil {
		return image{}, err
	}
	plain, manifest, err := content(oci)
	if err != nil {
		return image{}, err
	}
	files, headers, err := readTar(bytes.NewReader(plain))
	if err != nil {
		return image{}, err
	}
	for _, h := range headers {
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o7022 != 0 {
			return image{}, fmt.Errorf("%s has owner %d:%d and mode %o", h.Name, h.Uid, h.Gid, h.Mode)
		}
	}
	size := d.Size + manifest.Config.Size + manifest.Layers[0].Size
	return image{digest: d.Digest, arch: d.Platform.Architecture, size: size, config: *config, files: files}, nil
}

// checkImages reports everything that is not as it should be.
func checkImages(images []image, src source, maxSize int64) error {
	var mistakes []error
	var seen []string
	for _, i := range images {
		seen = append(seen, i.arch)
		for _, err := range i.check(src, maxSize) {
			mistakes = append(mistakes, fmt.Errorf("linux/%s: %w", i.arch, err))
		}
	}
	if !slices.Equal(seen, architectures) {
		mistakes = append(mistakes, fmt.Errorf("images for %q, want %q", seen, architectures))
	}
	return errors.Join(mistakes...)
}

func (i image) check(src source, maxSize int64) []error {
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	if i.size > maxSize {
		mistake("%d bytes compressed, more than %d", i.size, maxSize)
	}
	if got, want := i.config.Config, src.config(); !reflect.DeepEqual(got, want) {
		mistake("runs as %+v, want %+v", got, want)
	}
	if i.config.OS != "linux" || i.config.Architecture != i.arch || !i.config.Created.Equal(src.created) {
		mistake("made for %s/%s at %v", i.config.OS, i.config.Architecture, i.config.Created)
	}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		switch {
		case name == programPath, name == "etc/passwd", name == "etc/group", strings.HasPrefix(name, "licenses/"):
		default:
			mistake("%s should not be there", name)
		}
	}
	program := i.files[programPath]
	if program.mode != 0o755 {
		mistake("%s has mode %o", programPath, program.mode)
	}
	for _, err := range standsAlone(program.data, i.arch) {
		mistake("%s: %w", programPath, err)
	}
	info, err := buildinfo.Read(bytes.NewReader(program.data))
	if err != nil {
		return append(mistakes, err)
	}
	if err := compareSBOM(i.sbom, info); err != nil {
		mistake("SBOM: %w", err)
	}
	if got := buildTags(info); got != src.tags {
		mistake("%s is built with the tags %q, want %q", programPath, got, src.tags)
	}
	for _, name := range linkedForDev(info) {
		mistake("%s links %s, which only --dev needs", programPath, name)
	}
	return mistakes
}

// buildTags returns the tags that a program was built with.
func buildTags(info *debug.BuildInfo) string {
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// linkedForDev returns the modules of a program that have no place in a pod: an embedded Redis, and
// its Lua VM.
func linkedForDev(info *debug.BuildInfo) []string {
	var found []string
	for _, m := range info.Deps {
		if m.Path == "github.com/alicebob/miniredis/v2" || m.Path == "github.com/yuin/gopher-lua" {
			found = append(found, m.Path)
		}
	}
	return found
}

// compareSBOM reports what the statement does not say of the program, which knows what it was built
// from.
func compareSBOM(statement []byte, info *debug.BuildInfo) error {
	var s struct{ Predicate v2_3.Document }
	if err := json.Unmarshal(statement, &s); err != nil {
		return err
	}
	if err := spdxlib.ValidateDocument(&s.Predicate); err != nil {
		return err
	}
	var mistakes []error
	for _, m := range append(info.Deps, &debug.Module{Path: info.Main.Path}) {
		if !slices.ContainsFunc(s.Predicate.Packages, func(p *v2_3.Package) bool {
			return p.PackageName == m.Path && (p.PackageVersion == m.Version || m.Version == "")
		}) {
			mistakes = append(mistakes, fmt.Errorf("says nothing of %s %s", m.Path, m.Version))
		}
	}
	return errors.Join(mistakes...)
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// standsAlone reports why a program could not run in an image that has nothing else.
func standsAlone(program []byte, arch string) []error {
	var mistakes []error
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return []error{err}
	}
	if f.Machine != machines[arch] {
		mistakes = append(mistakes, fmt.Errorf("is for %v", f.Machine))
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			mistakes = append(mistakes, fmt.Errorf("is not static: it has %v", p.Type))
		}
	}
	return mistakes
}
