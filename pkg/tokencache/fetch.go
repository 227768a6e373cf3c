package tokencache

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// fetch asks the Source of spec for a value, once, and reports the call to the observer. It fills
// in what a Source left open, on the safe side. reason may be forced.
func (c *Cache) fetch(ctx context.Context, sl *slot, spec *Credential, reason Reason, r Request) (Value, *FetchError) {
	asked := now()
	var v Value
	err := guard("source", func() (err error) {
		v, err = spec.Source.Fetch(ctx, r)
		return err
	})
	if err == nil && (!usable(v.Value) || v.Life <= now().since(asked)) {
		err = &FetchError{Class: ClassTransient, Message: "upstream gave no usable value", Unclear: true}
	}
	failed, ok := errors.AsType[*FetchError](err)
	if err != nil && !ok {
		failed = &FetchError{Class: ClassTransient, Message: "no answer", Unclear: true, Err: err}
		if panicked, ok := errors.AsType[*panicError](err); ok {
			failed.Message, failed.Err = panicked.Error(), nil
		}
	}
	if failed != nil && failed.RetryAfter > longestBackoff {
		bounded := *failed // which is the Source's
		bounded.RetryAfter = longestBackoff
		failed = &bounded
	}
	e := Event{Reason: reason, Result: ResultFetched, Took: now().since(asked)}
	if failed != nil {
		v, e.Err = Value{}, failed
	}
	c.observe(sl, e)
	return v, failed
}

// probe asks upstream whether it accepts value, once, and reports the call to the observer. The
// credential has a Probe.
func (c *Cache) probe(ctx context.Context, sl *slot, spec *Credential, reason Reason, value secret.String) error {
	asked := now()
	err := guard("probe", func() error { return spec.Probe(ctx, value) })
	c.observe(sl, Event{Reason: reason, Result: ResultProbed, Took: now().since(asked), Err: err})
	return err
}

// guard runs f, which is not code of this package. A panic in it becomes an error of this one call.
// What f panicked with may hold a value, and the runtime would print it: the error has only its
// type and its place.
func guard(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{what: what, with: fmt.Sprintf("%T", p), place: panicPlace()}
		}
	}()
	return f()
}

// panicError is what guard makes of a panic.
type panicError struct{ what, with, place string }

func (e *panicError) Error() string {
	return fmt.Sprintf("the %s panicked with a %s%s", e.what, e.with, e.place)
}

// panicPlace says where the panic began that a deferred function has just recovered from.
func panicPlace() string {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]) // without Callers, this and the deferred function
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf(" at %s:%d", filepath.Base(frame.File), frame.Line)
		}
		if !more {
			return ""
		}
	}
}
