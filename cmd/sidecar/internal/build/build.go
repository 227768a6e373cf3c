// Package build says what the running program was built from.
package build

import "runtime/debug"

// version and revision are set by the linker where the image is built, which the go command may not
// know to be a checkout:
//
//	-X github.com/wxtoken/sidecar/cmd/sidecar/internal/build.version=v1.2.3
//
// Nothing else writes them.
var version, revision string

// unknown is what is said where nothing is known.
const unknown = "unknown"

// Version is that of the image, or what the go command says that this is: a tag, or a commit and
// its time.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return unknown
}

// Revision is the commit that this was built from, if it was built in a checkout.
func Revision() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	commit, modified := unknown, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	return commit + modified
}
