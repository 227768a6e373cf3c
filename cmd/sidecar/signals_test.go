package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A terminal that is closed, a log that nothing reads any more and a second signal end no sidecar,
// and every signal that stops it lets it drain.
func TestSignals(t *testing.T) {
	if config := os.Getenv("SIDECAR_UNDER_TEST"); config != "" {
		os.Args = []string{"sidecar", "--config", config}
		main()
	}
	for _, last := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(last.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSignals$", "-test.count=1")
			cmd.Env = append(os.Environ(), "SIDECAR_UNDER_TEST="+r.config, "WXTOKEN_DRAIN=1s")
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = write
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = write.Close()
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			send := func(s syscall.Signal) {
				if err := cmd.Process.Signal(s); err != nil {
					t.Errorf("%v: %v", s, err)
				}
			}
			waitFor(t, "the start", func() bool { return strings.Contains(r.get(t, "o.sock", "/status"), `"id": "wx2"`) })

			text, err := os.ReadFile(r.config)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "  - {id: wx2")
			r.write(t, "config.yaml", first)
			send(syscall.SIGHUP)
			_ = read.SetReadDeadline(time.Now().Add(patience))
			for log := bufio.NewScanner(read); log.Scan() && !strings.Contains(log.Text(), "configuration applied"); {
			}
			if strings.Contains(r.get(t, "o.sock", "/status"), `"id": "wx2"`) {
				t.Error("the new configuration is not in force")
			}
			_ = read.Close() // from here on, each line of the log is a SIGPIPE
			r.write(t, "config.yaml", string(text))
			send(syscall.SIGHUP)
			waitFor(t, "the configuration, without a log", func() bool { return strings.Contains(r.get(t, "o.sock", "/status"), `"id": "wx2"`) })

			send(last)
			send(last) // it hurries nothing
			if err := <-exited; err != nil {
				t.Errorf("it ended with %v, want exit status 0", err)
			}
		})
	}
}
