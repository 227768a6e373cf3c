// Command image makes the container image of the sidecar without a container engine: one OCI layout
// in a tarball, for amd64 and arm64, from an empty base, byte for byte the same from the same
// source.
//
//	image [flags] build     write OUT/wxtoken-VERSION.oci.tar and its SBOMs, and look at what was written
//	image [flags] check     look at it, run its program, build it again elsewhere, and compare
//	image [flags] rootfs D  write the files of one platform's image into the directory D
//
// It needs the go command, and git where the source is a checkout; both subcommands find the file
// by the version.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	root    string
	out     string
	name    string
	version string
	goarch  string
	maxSize int64
	cold    bool
	tags    string
}

func command(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", "..", "`directory` of the source")
	flags.StringVar(&o.out, "out", "../dist", "`directory` for the tarball and the SBOMs")
	flags.StringVar(&o.name, "name", "ghcr.io/wxtoken/sidecar", "`name` of the image, under which an engine that loads the tarball will know it")
	flags.StringVar(&o.version, "version", "", "`version` and tag of the image (default: git describe, or devel outside of a checkout)")
	flags.Int64Var(&o.maxSize, "max-size", 10_000_000, "the most `bytes` that a platform's image may have, compressed")
	flags.StringVar(&o.goarch, "arch", runtime.GOARCH, "rootfs: the `architecture`")
	flags.StringVar(&o.tags, "tags", "", "build `tags` of the program: none, or sql for vaults in PostgreSQL and MySQL, whose version ends with -sql")
	flags.BoolVar(&o.cold, "cold", false, "check: compile everything again for the comparison, which takes minutes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	src, err := describe(ctx, o.root, o.version)
	if err != nil {
		return err
	}
	switch o.tags {
	case "":
	case "sql":
		src = src.withSQL()
	default:
		return fmt.Errorf("no image has the tags %q: there is sql, and none", o.tags)
	}
	archive := filepath.Join(o.out, "wxtoken-"+src.version+".oci.tar")
	switch sub := flags.Args(); {
	case len(sub) == 1 && sub[0] == "build":
		if err := build(ctx, src, o.name, archive, os.Environ()); err != nil {
			return err
		}
		return look(archive, src, o, stdout)
	case len(sub) == 1 && sub[0] == "check":
		if err := look(archive, src, o, stdout); err != nil {
			return err
		}
		if err := tryOut(ctx, archive, src, stdout); err != nil {
			return err
		}
		return buildAgain(ctx, archive, src, o, stdout)
	case len(sub) == 2 && sub[0] == "rootfs":
		files, _, err := rootfs(ctx, src, o.goarch, os.Environ())
		if err != nil {
			return err
		}
		return unpack(files, sub[1])
	}
	return errors.New("want one of: build, check, rootfs DIRECTORY; see -help")
}

// build writes the tarball, and beside it the SBOM of each platform.
func build(ctx context.Context, src source, name, archive string, env []string) error {
	var parts []part
	for _, arch := range architectures {
		files, bill, err := rootfs(ctx, src, arch, env)
		if err != nil {
			return err
		}
		parts = append(parts, part{arch: arch, files: files, sbom: bill})
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return err
	}
	for _, p := range parts {
		path := strings.TrimSuffix(archive, ".oci.tar") + "-linux-" + p.arch + ".spdx.json"
		if err := os.WriteFile(path, p.sbom, 0o644); err != nil {
			return err
		}
	}
	return writeArchive(archive, src, name, parts)
}

// look checks the tarball as it is on disk, and prints its figures.
func look(archive string, src source, o options, stdout io.Writer) error {
	digest, images, err := readArchive(archive)
	if err != nil {
		return err
	}
	if err := checkImages(images, src, o.maxSize); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\nindex %s\n\n", archive, digest)
	fmt.Fprintln(stdout, "| platform | image, compressed | program | files |\n|---|---|---|---|")
	for _, i := range images {
		program := i.files[programPath].data
		fmt.Fprintf(stdout, "| linux/%s | %.2f MB | %.2f MB | %d |\n", i.arch, mega(i.size), mega(int64(len(program))), len(i.files))
	}
	return nil
}

func mega(bytes int64) float64 { return float64(bytes) / 1e6 }
