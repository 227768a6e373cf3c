package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
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
		build.Version(), build.Revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitDone
}
