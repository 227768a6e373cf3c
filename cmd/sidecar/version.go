package main

import "runtime/debug"

// buildVersion is what the go command says that this is: a tag, or a commit and its time.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
