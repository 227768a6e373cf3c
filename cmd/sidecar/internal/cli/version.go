package cli

import (
	"context"
	"fmt"
	"runtime"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
)

// Version is the command version.
var Version = Command{Name: "version", Summary: "print the version", Usage: versionUsage, About: versionAbout, Run: runVersion}

const versionUsage = "version"

const versionAbout = `Prints the version, the commit that it was built from, the version of Go, and the platform.

exit status:
  0  printed
  2  wrong usage
`

func runVersion(_ context.Context, c *Invocation) int {
	if _, status, done := c.Parse(c.Flags(), 0); done {
		return status
	}
	fmt.Fprintf(c.Stdout, "sidecar   %s\nrevision  %s\ngo        %s\nplatform  %s/%s\n",
		build.Version(), build.Revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return Done
}
