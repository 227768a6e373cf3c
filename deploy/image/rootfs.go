package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// A file of the image. All belong to root, so that the program cannot change what it runs.
type file struct {
	data []byte
	mode int64
}

// rootfs compiles the program for an architecture and returns all files of its image by path, and
// the SBOM.
func rootfs(ctx context.Context, src source, arch string, env []string) (map[string]file, []byte, error) {
	program, err := compile(ctx, src, arch, env)
	if err != nil {
		return nil, nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, nil, err
	}
	parts, err := components(ctx, src, info, env)
	if err != nil {
		return nil, nil, err
	}
	files := map[string]file{
		programPath:  {program, 0o755},
		"etc/passwd": {[]byte(passwd), 0o644},
		"etc/group":  {[]byte(group), 0o644},
	}
	// What the licenses of all that is linked in ask for: that they come along.
	for _, p := range parts {
		for name, text := range p.licenses {
			files[path.Join("licenses", p.name, name)] = file{text, 0o644}
		}
	}
	bill, err := spdx(src, arch, program, parts)
	return files, bill, err
}

// buildPackage is where the program keeps what it was built from.
const buildPackage = "github.com/wxtoken/sidecar/cmd/sidecar/internal/build"

// compile returns the program. Nothing of this host gets into it: no C library, no path, no state
// of git.
func compile(ctx context.Context, src source, arch string, env []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wxtoken-image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, programPath)
	env = append(slices.Clone(env), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off")
	_, err = output(ctx, src.root, env,
		"go", "build", "-trimpath", "-buildvcs=false", "-tags", src.tags, "-ldflags", "-s -w -X "+buildPackage+".version="+src.version+" -X "+buildPackage+".revision="+src.revision, "-o", binary, "./cmd/sidecar")
	if err != nil {
		return nil, err
	}
	return os.ReadFile(binary)
}

// unpack writes files below dir.
func unpack(files map[string]file, dir string) error {
	for name, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f.data, os.FileMode(f.mode)); err != nil {
			return err
		}
	}
	return nil
}
