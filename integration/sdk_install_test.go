package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
)

// toolchain runs the programs of one language, with the SDKs that it has installed.
type toolchain struct {
	tools   []string               // what has to be on the machine
	files   []string               // what decides what is installed
	install func(dir string) error // into an empty directory
	dir     func() (string, error) // where it is: of the files' hash, so that it is installed once
}

// needs makes a toolchain that is installed when the first test wants it, and at most once for each
// content of its files, outside of the repository.
func needs(name string, tools, files []string, install func(dir string) error) *toolchain {
	tc := &toolchain{tools: tools, files: files, install: install}
	tc.dir = sync.OnceValues(func() (string, error) { return tc.prepare(name) })
	return tc
}

var errNoRegistry = errors.New("no package registry can be reached")

func (tc *toolchain) prepare(name string) (string, error) {
	for _, tool := range tc.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return "", err
		}
	}
	hash := sha256.New()
	for _, file := range tc.files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		_, _ = hash.Write(text)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "wxtoken")
	dir := filepath.Join(cache, name+"-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// Another process may do the same: each has a directory of its own, and the first one stays.
	mine, err := os.MkdirTemp(cache, name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(mine)
	if err := tc.install(mine); err != nil {
		return "", err
	}
	if err := os.Rename(mine, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
	}
	return dir, nil
}

// unreachable is what package managers print when the network is what fails.
var unreachable = regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|E50\d|` + // npm
	`NewConnectionError|ConnectTimeoutError|NameResolutionError|Temporary failure in name resolution|` + // pip
	`Unknown host|Connection refused|Connection timed out|Network is unreachable|` + // Maven
	`dial tcp|no such host|i/o timeout`) // Go

// execute runs a step of an installation.
func execute(dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || unreachable.Match(out):
		return fmt.Errorf("%w: %s: %w", errNoRegistry, name, err)
	}
	if bytes.Contains(out, []byte("ensurepip is not")) { // Debian has it in a package of its own
		return fmt.Errorf("python3-venv: %w", exec.ErrNotFound)
	}
	return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
}

// need returns where the toolchain is. It skips the test where that cannot be had, unless
// WXTOKEN_REQUIRE_SDK is set.
func (tc *toolchain) need(t *testing.T) string {
	t.Helper()
	dir, err := tc.dir()
	switch {
	case err == nil:
	case os.Getenv("WXTOKEN_REQUIRE_SDK") == "1":
		t.Fatalf("WXTOKEN_REQUIRE_SDK=1, and the SDKs are not there: %v", err)
	case errors.Is(err, errNoRegistry), errors.Is(err, exec.ErrNotFound):
		t.Skipf("the SDKs are not there: %v", err)
	default:
		t.Fatal(err)
	}
	return dir
}

var (
	nodeSDKs = needs("sdk-node", []string{"node", "npm"}, []string{"sdk/node/package.json", "sdk/node/package-lock.json"}, func(dir string) error {
		for _, file := range []string{"package.json", "package-lock.json"} {
			if err := copyFile(filepath.Join("sdk/node", file), filepath.Join(dir, file)); err != nil {
				return err
			}
		}
		return execute(dir, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline",
			"--fetch-retries=1", "--fetch-retry-mintimeout=1000")
	})

	goSDK = needs("sdk-go", []string{"go"}, []string{"sdk/go/go.mod", "sdk/go/go.sum", "sdk/go/main.go", "sdk/go/apps.go"}, func(dir string) error {
		return execute("sdk/go", "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "app"), ".")
	})

	// The jars come from Maven. The program is one source, which javac compiles in less time than
	// Maven takes to start.
	javaSDK = needs("sdk-java", []string{"mvn", "java", "javac"}, []string{"sdk/java/pom.xml", "sdk/java/App.java"}, func(dir string) error {
		if err := execute("sdk/java", "mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies", "-DincludeScope=runtime",
			"-DoutputDirectory="+filepath.Join(dir, "jars")); err != nil {
			return err
		}
		return execute("sdk/java", "javac", "-encoding", "UTF-8", "-d", filepath.Join(dir, "classes"),
			"-cp", filepath.Join(dir, "jars", "*"), "App.java")
	})

	pythonSDK = needs("sdk-python", []string{"python3"}, []string{"sdk/python/requirements.txt"}, func(dir string) error {
		if err := execute("", "python3", "-m", "venv", dir); err != nil {
			return err
		}
		return execute("", filepath.Join(dir, "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check",
			"--retries", "1", "-r", "sdk/python/requirements.txt")
	})
)

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}
