package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/licenseclassifier/v2/assets"
)

var someTime = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// small is a program that links nothing but the runtime, and its image: built once, for all tests.
var small struct {
	source
	archive string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wxtoken-image-test")
	if err != nil {
		panic(err)
	}
	small.source = source{root: filepath.Join(dir, "source"), version: "v1.2.3", revision: "0123abc", created: someTime}
	small.archive = filepath.Join(dir, "small.oci.tar")
	for name, text := range map[string]string{
		"go.mod":              "module github.com/wxtoken/sidecar\n\ngo 1.26.0\n",
		"LICENSE":             "Licensed under the Apache License, Version 2.0",
		"cmd/sidecar/main.go": "package main\n\nvar version string\n\nfunc main() { println(version) }\n",
	} {
		path := filepath.Join(small.root, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	if err = errors.Join(err, build(context.Background(), small.source, "example.test/wxtoken", small.archive, os.Environ())); err != nil {
		fmt.Fprintln(os.Stderr, "building the small image:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unpacked are the images of small.
func unpacked(t *testing.T) []image {
	t.Helper()
	_, images, err := readArchive(small.archive)
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestTheSameSourceAtTwoPlacesGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	there := small.source
	there.root = filepath.Join(t.TempDir(), "a", "longer", "way")
	if err := copySource(there.root, small.root); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.oci.tar")
	if err := build(t.Context(), there, "example.test/wxtoken", again, os.Environ()); err != nil {
		t.Fatal(err)
	}
	var tars [2][]byte
	for i, archive := range []string{small.archive, again} {
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		tars[i] = data
	}
	if !bytes.Equal(tars[0], tars[1]) {
		t.Error("two builds of the same source differ")
	}
	if !bytes.HasSuffix(tars[0], make([]byte, 1024)) {
		t.Error("the tarball does not end as a tar does")
	}
	// The clock has seconds in a tar, so that two builds in one second do not show it.
	_, headers, err := readTar(bytes.NewReader(tars[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		if !h.ModTime.Equal(someTime) {
			t.Errorf("%s is of %v, want the source's time", h.Name, h.ModTime)
		}
	}
}

func TestTheImageIsWhatItsCheckWants(t *testing.T) {
	t.Parallel()
	images := unpacked(t)
	if err := checkImages(images, small.source, 5_000_000); err != nil {
		t.Error(err)
	}
	want := []string{"etc/group", "etc/passwd", "licenses/github.com/wxtoken/sidecar/LICENSE"}
	for _, name := range want {
		if _, ok := images[0].files[name]; !ok {
			t.Errorf("%s is not there", name)
		}
	}
	if got := images[0].config.Config.Labels["org.opencontainers.image.revision"]; got != small.revision {
		t.Errorf("revision %q, want %q", got, small.revision)
	}
	// A descriptor of an artifact is for other tools than those that run images.
	if archive, err := os.ReadFile(small.archive); err != nil || bytes.Contains(archive, []byte("artifactType")) {
		t.Errorf("the images are described as artifacts: %v", err)
	}
}

// Each line of the table spoils one thing that the check must see.
func TestTheCheckSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := unpacked(t)
	for _, test := range []struct {
		want  string
		spoil func(*image)
	}{
		{"more than", func(i *image) { i.size = 5_000_001 }},
		{"runs as", func(i *image) { i.config.Config.User = "0" }},
		{"runs as", func(i *image) { i.config.Config.Entrypoint = []string{"/bin/sh"} }},
		{"made for", func(i *image) { i.config.Created = v1.Time{Time: time.Now()} }},
		{"should not be there", func(i *image) { i.files["bin/sh"] = file{} }},
		{"has mode", func(i *image) { i.files[programPath] = file{i.files[programPath].data, 0o644} }},
		{"is for EM_AARCH64", func(i *image) { i.files[programPath] = good[1].files[programPath] }},
		{"has PT_INTERP", func(i *image) { i.files[programPath] = file{dynamic(t, i.files[programPath].data), 0o755} }},
		{"says nothing of", func(i *image) { i.sbom = bytes.ReplaceAll(i.sbom, []byte(`wxtoken/sidecar`), []byte(`x`)) }},
		{"images for", func(i *image) { i.arch = "riscv64" }},
	} {
		spoilt := slices.Clone(good)
		spoilt[0].files = maps.Clone(good[0].files)
		test.spoil(&spoilt[0])
		if err := checkImages(spoilt, small.source, 5_000_000); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want a word about %q, got %v", test.want, err)
		}
	}
}

// dynamic turns the type of the program's first segment into that of an interpreter.
func dynamic(t *testing.T, program []byte) []byte {
	t.Helper()
	const firstSegment = 64 // behind the header of a 64-bit ELF; its type comes first
	program = bytes.Clone(program)
	copy(program[firstSegment:], []byte{3, 0, 0, 0})
	return program
}

func TestAnAlteredBlobIsNotRead(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(small.archive)
	if err != nil {
		t.Fatal(err)
	}
	// In the middle is a layer: most of the tarball is two of them.
	data[len(data)/4] ^= 1
	archive := filepath.Join(t.TempDir(), "altered.oci.tar")
	write(t, archive, string(data))
	if _, _, err := readArchive(archive); err == nil || !strings.Contains(err.Error(), "is another one") {
		t.Errorf("got %v", err)
	}
}

// Of the program of the image, go list in cmd/sidecar shows the same before it is built.
func TestWhatOnlyDevNeedsIsSeen(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{Deps: []*debug.Module{{Path: "go.uber.org/zap"}, {Path: "github.com/alicebob/miniredis/v2"}, {Path: "github.com/yuin/gopher-lua"}}}
	if got := linkedForDev(info); !slices.Equal(got, []string{"github.com/alicebob/miniredis/v2", "github.com/yuin/gopher-lua"}) {
		t.Errorf("got %q", got)
	}
}

func TestCodeWithoutALicenseIsNotPassedOn(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{Main: debug.Module{Path: "github.com/wxtoken/sidecar"}, GoVersion: "go1.26.0"}
	bare := small.source
	bare.root = t.TempDir()
	write(t, filepath.Join(bare.root, "go.mod"), "module github.com/wxtoken/sidecar\n")
	if _, err := components(t.Context(), bare, info, os.Environ()); err == nil || !strings.Contains(err.Error(), "no license") {
		t.Errorf("got %v", err)
	}
}

// A license is its text, whatever its lines; words that stand in one are not enough to declare it.
func TestLicensesAreNamed(t *testing.T) {
	t.Parallel()
	text := func(name string) string {
		t.Helper()
		data, err := assets.ReadLicenseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return "Copyright (c) 2026 The Authors\n\n" + strings.ReplaceAll(string(data), ". ", ".\n// ")
	}
	const words = "Redistributions in binary form must reproduce the above copyright notice"
	for want, texts := range map[string][]string{
		"Apache-2.0 AND MIT": {text("License/MIT/pristine.txt") + "\n\n" + text("Header/Apache-2.0/header.txt"), "Some notice."},
		"Apache-2.0":         {text("License/Apache-2.0/pristine.txt")},
		"BSD-2-Clause":       {text("License/BSD-2-Clause/pristine.txt")},
		"BSD-3-Clause":       {text("License/BSD-3-Clause/pristine.txt")},
		noAssertion:          {"All rights reserved. We do not say: " + words + "."},
	} {
		files := map[string][]byte{}
		for i, text := range texts {
			files[fmt.Sprintf("LICENSE.%d", i)] = []byte(text)
		}
		if got, err := expression(files); err != nil || got != want {
			t.Errorf("%q, want %q: %v", got, want, err)
		}
	}
}

// The image with the drivers says so in its version, and an image is never taken for the other one.
func TestTheImageWithDriversIsNamed(t *testing.T) {
	t.Parallel()
	sql := small.withSQL()
	if sql.version != "v1.2.3-sql" || sql.tag() != "1.2.3-sql" {
		t.Errorf("version %s, tag %s", sql.version, sql.tag())
	}
	err := checkImages(unpacked(t), sql, 1<<30)
	if err == nil || !strings.Contains(err.Error(), `is built with the tags "", want "sql"`) {
		t.Errorf("the image without drivers passes for the one with: %v", err)
	}
	program, err := compile(t.Context(), sql, "amd64", os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil || buildTags(info) != "sql" {
		t.Errorf("built with the tags %q, %v", buildTags(info), err)
	}
	if err := command(t.Context(), []string{"-tags", "dev", "build"}, io.Discard); err == nil {
		t.Error("an image with the tag dev")
	}
}
