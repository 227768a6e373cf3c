package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

const versionUsage = "version"

const versionAbout = `Prints the version, the commit that it was built from, the version of Go, and the platform.

exit status:
  0  printed
  2  wrong usage
`

func runVersion(_ context.Context, c *invocation) int {
	if _, status, done := c.parse(c.flags(), 0); done {
		return status
	}
	fmt.Fprintf(c.stdout, "sidecar   %s\nrevision  %s\ngo        %s\nplatform  %s/%s\n",
		buildVersion(), buildRevision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitDone
}

// buildRevision is the commit that this was built from, if it was built in a checkout.
func buildRevision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	return revision + modified
}
