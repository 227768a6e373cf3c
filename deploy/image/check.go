package main

import (
	"bytes"
	"compress/gzip"
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
)

// layout is a tarball that was read back. Every blob that is asked for has been compared with its digest.
type layout struct {
	files map[string]file
	index v1.Descriptor
}

// image is one platform's, unpacked.
type image struct {
	arch   string
	size   int64 // manifest, configuration and layers, as they are transferred
	config v1.ConfigFile
	files  map[string]file
	sbom   []byte
}

func readArchive(path string) (*layout, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files, _, err := readTar(data)
	if err != nil {
		return nil, err
	}
	l := &layout{files: files}
	var top v1.IndexManifest
	if err := json.Unmarshal(files["index.json"].data, &top); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(top.Manifests) != 1 {
		return nil, fmt.Errorf("index.json has %d entries, want 1", len(top.Manifests))
	}
	l.index = top.Manifests[0]
	return l, nil
}

// blob returns what d describes.
func (l *layout) blob(d v1.Descriptor) ([]byte, error) {
	f, ok := l.files[blobPath(d.Digest)]
	switch {
	case !ok:
		return nil, fmt.Errorf("blob %s is missing", d.Digest)
	case sha256Of(f.data) != d.Digest || int64(len(f.data)) != d.Size:
		return nil, fmt.Errorf("blob %s is another one", d.Digest)
	}
	return f.data, nil
}

func (l *layout) decode(d v1.Descriptor, into any) error {
	data, err := l.blob(d)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// images unpacks what is in the index. Each must have its SBOM.
func (l *layout) images() ([]image, error) {
	var index v1.IndexManifest
	if err := l.decode(l.index, &index); err != nil {
		return nil, fmt.Errorf("the index: %w", err)
	}
	byDigest := map[string]*image{}
	var all []*image
	for _, d := range index.Manifests {
		var m v1.Manifest
		if err := l.decode(d, &m); err != nil {
			return nil, err
		}
		if len(m.Layers) != 1 {
			return nil, fmt.Errorf("%s has %d layers, want 1", d.Digest, len(m.Layers))
		}
		layer, err := l.blob(m.Layers[0])
		if err != nil {
			return nil, err
		}
		if about, ok := d.Annotations["vnd.docker.reference.digest"]; ok {
			i := byDigest[about]
			if i == nil || m.Subject == nil || m.Subject.Digest.String() != about {
				return nil, fmt.Errorf("%s is an SBOM of no image here", d.Digest)
			}
			i.sbom = layer
			continue
		}
		i := &image{arch: d.Platform.Architecture, size: d.Size + m.Config.Size + m.Layers[0].Size}
		if err := l.decode(m.Config, &i.config); err != nil {
			return nil, err
		}
		if i.files, err = unpackLayer(layer, i.config); err != nil {
			return nil, err
		}
		byDigest[d.Digest.String()], all = i, append(all, i)
	}
	var out []image
	for _, i := range all {
		out = append(out, *i)
	}
	return out, nil
}

func unpackLayer(layer []byte, config v1.ConfigFile) (map[string]file, error) {
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(config.RootFS.DiffIDs, []v1.Hash{sha256Of(plain)}) {
		return nil, errors.New("the configuration names another layer")
	}
	files, headers, err := readTar(plain)
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o7022 != 0 {
			return nil, fmt.Errorf("%s has owner %d:%d and mode %o", h.Name, h.Uid, h.Gid, h.Mode)
		}
	}
	return files, nil
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
	for _, name := range linkedForDev(info) {
		mistake("%s links %s, which only --dev needs", programPath, name)
	}
	return mistakes
}

// linkedForDev returns the modules of a program that have no place in a pod: an embedded Redis, and its Lua VM.
func linkedForDev(info *debug.BuildInfo) []string {
	var found []string
	for _, m := range info.Deps {
		if m.Path == "github.com/alicebob/miniredis/v2" || m.Path == "github.com/yuin/gopher-lua" {
			found = append(found, m.Path)
		}
	}
	return found
}

// compareSBOM reports what the statement does not say of the program, which knows what it was built from.
func compareSBOM(statement []byte, info *debug.BuildInfo) error {
	var s struct{ Predicate spdxDocument }
	if err := json.Unmarshal(statement, &s); err != nil {
		return err
	}
	var mistakes []error
	for _, m := range append(info.Deps, &debug.Module{Path: info.Main.Path}) {
		if !slices.ContainsFunc(s.Predicate.Packages, func(p spdxPackage) bool {
			return p.Name == m.Path && (p.VersionInfo == m.Version || m.Version == "")
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
