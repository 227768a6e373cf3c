package main

import "runtime/debug"

// version is set by the linker.
var version = ""

// buildVersion is what the linker or, without it, the go command says that this is.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
