package doctor

import (
	"fmt"
	"os"
)

const (
	othersRead  = 0o004 // permission bits
	othersWrite = 0o022
)

// secretFiles looks at the modes of the files that hold secrets. That they can be read and hold
// something is part of the configuration, and so is the warning about one that every user can read.
func (e *examination) secretFiles() {
	seen := map[string]bool{"": true}
	paths := []string{e.cfg.BearerTokenFile}
	for _, app := range e.cfg.Apps {
		paths = append(paths, app.SecretFile)
	}
	for _, path := range paths {
		if seen[path] {
			continue
		}
		seen[path] = true
		const check = "secret file"
		info, err := os.Stat(path)
		if err != nil {
			e.fail(check, path+" has just gone", "let it stay: the sidecar reads it again and again")
			continue
		}
		mode := info.Mode().Perm()
		switch {
		case mode&othersWrite != 0:
			e.warn(check, fmt.Sprintf("%s has mode %04o: others than its owner may change it", path, mode), "chmod go-w "+path)
		case mode&othersRead == 0:
			e.ok(check, fmt.Sprintf("%s has mode %04o", path, mode))
		}
	}
}
