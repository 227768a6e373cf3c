package rig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// process is a program that the rig started and reaps.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// started programs are children of one thread that never ends: where the system can, it
// kills them with that thread, so that a test that is killed leaves none behind.
var starts = sync.OnceValue(func() chan func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return todo
})

func start(cmd *exec.Cmd) (*process, error) {
	if attr := dieWithParent(); attr != nil && cmd.SysProcAttr != nil {
		attr.Credential = cmd.SysProcAttr.Credential
		cmd.SysProcAttr = attr
	} else if attr != nil {
		cmd.SysProcAttr = attr
	}
	result := make(chan error)
	starts() <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.exited) }()
	return p, nil
}

// signal sends s; one that comes too late is lost.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends it, stopped or not, and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Buffer collects what a process writes. Safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns everything written so far.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// stopped reports whether a signal has stopped the process, where /proc can tell.
func (p *process) stopped() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, state, ok := strings.Cut(string(stat), ") ")
	return err != nil || ok && strings.HasPrefix(state, "T")
}
