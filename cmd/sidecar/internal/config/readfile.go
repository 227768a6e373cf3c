package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

const (
	maxFile   = 16 << 20 // bytes of a configuration file: some ten thousand apps
	maxSecret = 4 << 10  // bytes of a file that holds one secret
	worldRead = 0o004    // permission bit
)

// readFile reads a regular file of at most limit bytes. Its errors say what to do and name the
// path.
func readFile(path string, limit int) ([]byte, fs.FileMode, error) {
	// Checked before opening: opening a pipe blocks until another process writes to it.
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, explain(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, explain(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, 0, explain(path, err)
	}
	if len(data) > limit {
		return nil, 0, fmt.Errorf("%s: longer than %d bytes", path, limit)
	}
	return data, info.Mode(), nil
}

// readFile is the function of this name. It remembers what it found.
func (n *notes) readFile(path string, limit int) ([]byte, fs.FileMode, error) {
	data, mode, err := readFile(path, limit)
	if err == nil {
		n.files = append(n.files, fileRead{path, limit, mode, sha256.Sum256(data)})
	}
	return data, mode, err
}

// fileRead is a file that went into a configuration, as it was then.
type fileRead struct {
	path   string
	limit  int
	mode   fs.FileMode
	digest [sha256.Size]byte
}

// unchanged reports whether the file is the same now.
func (f fileRead) unchanged() bool {
	data, mode, err := readFile(f.path, f.limit)
	return err == nil && mode == f.mode && sha256.Sum256(data) == f.digest
}

func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: no such file: create it or correct the path", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: let the user that this program runs as read it", path)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // without the path, which is there already
	}
	return fmt.Errorf("%s: %w", path, err)
}

// secretFile returns the content of a file that holds one secret and perhaps white space around it.
// If it cannot, it notes a mistake at the key called at and returns the empty text.
func (n *notes) secretFile(path, at string) secret.String {
	text, ok := n.secretText(path, at)
	if !ok {
		return secret.String{}
	}
	return n.checkSecret(text, at, path+": ")
}

// secretLines reads a file that holds a secret on each line. Lines that are empty or begin with #
// are skipped.
func (n *notes) secretLines(path, at string) (list []secret.String) {
	text, ok := n.secretText(path, at)
	if !ok {
		return nil
	}
	for line := range strings.Lines(trim(text)) {
		if line = trim(line); line != "" && line[0] != '#' {
			list = append(list, n.checkSecret(line, at, path+": "))
		}
	}
	if len(list) == 0 {
		n.mistake(at, "%s: empty", path)
	}
	return list
}

// secretText reads a file that only this program should be able to read.
func (n *notes) secretText(path, at string) (string, bool) {
	if !filepath.IsAbs(path) {
		// Not repeated: it may be the secret itself.
		n.mistake(at, "must be the absolute path of a file that holds the secret")
		return "", false
	}
	data, mode, err := n.readFile(path, maxSecret)
	if err != nil {
		n.mistake(at, "%v", err)
		return "", false
	}
	if mode&worldRead != 0 && !inKubernetesVolume(path) {
		n.warn(at, "%s: every user of this host may read it: chmod o-r", path)
	}
	return string(data), true
}

// inKubernetesVolume reports whether kubelet mounted path. Only the containers that mount it can
// reach it, whatever its mode says; and its files belong to root, so without an fsGroup for the
// whole pod the program can read them by that one bit only.
func inKubernetesVolume(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(target, "..data/")
}

// checkSecret trims what is around a secret and refuses what can be none. The prefix goes before
// the text of the mistake.
func (n *notes) checkSecret(s, at, prefix string) secret.String {
	s = trim(s)
	switch {
	case s == "":
		n.mistake(at, "%sempty", prefix)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		n.mistake(at, "%sholds a space, a control character or a byte that is not ASCII: it must hold the secret and nothing else", prefix)
	default:
		return secret.New(s)
	}
	return secret.String{}
}
