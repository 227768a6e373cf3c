package main

import "runtime/debug"

// version is set by the linker where the image is built, which the go command may not know to be a
// checkout: -X main.version=v1.2.3. Nothing else writes it.
var version string

// buildVersion is the version of the image, or what the go command says that this is: a tag, or a
// commit and its time.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
