// Command sidecar keeps the WeChat credentials of one pod's apps: in memory, in Redis for the other
// pods, and refreshed once for all of them.
//
//	sidecar [serve] [flags]
//
// Other commands ask a running one, or look for what is wrong: see sidecar help.
//
// Exit status: 0 if it did what it was asked to (serve: after a signal), 1 if it could not, 2 for
// wrong flags or, of serve, a wrong configuration.
package main

import (
	"context"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"syscall"

	// The image is made from nothing, so it has no file with the roots of trust: without these,
	// WeChat's certificate and that of a rediss:// server could not be verified there. A host's own
	// roots, and SSL_CERT_FILE and SSL_CERT_DIR, come first: these serve only where there are none.
	//
	// Time zones need no such thing: nothing here asks for one by name (WeChat's day is a fixed
	// +08:00, and all else is a duration or a Unix time).
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultcmd"
)

func main() {
	// What libraries write there may quote a peer; serve keeps what is safe of it.
	stdlog.SetOutput(io.Discard)
	// A second signal changes nothing: stopping is already as fast as is safe. SIGQUIT is what some
	// runtimes stop a container with; Go's dump of all goroutines would end it without a drain.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// commands are what the program can do. The first one is run if none is named.
func commands() []cli.Command {
	return []cli.Command{
		{Name: "serve", Summary: "keep the tokens and hand them out; the command if none is named", Usage: serveUsage, About: serveAbout, Run: runServe},
		cli.Wait,
		cli.Get,
		cli.Status,
		cli.Healthcheck,
		doctor.Command,
		vaultcmd.Command(os.Stdin),
		cli.Version,
		cli.Help,
	}
}

// command runs the program and returns its exit status.
func command(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return cli.Run(ctx, commands(), args, getenv, stdout, stderr)
}
