// Package observe has the observers of [tokencache.Event]: metrics, log and traces. It also counts
// what the listeners and the proxy answer. No label, field or attribute holds a secret, a value or
// a caller's text.
package observe

import (
	"errors"
	"strconv"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Observe counts an event. It is for [tokencache.Options].
func (m *Metrics) Observe(e tokencache.Event) {
	switch e.Result {
	case tokencache.ResultSubscribed:
		m.subscriptions.Inc()
	case tokencache.ResultClockStepped:
		direction := forward
		if e.Took < 0 {
			direction = backward
		}
		m.steps.WithLabelValues(direction).Inc()
	}
	if failed, ok := operation(e); ok {
		m.redis.WithLabelValues(oneOf(redisOps[:], failed.Op), oneOf(tokencache.StoreClasses[:], failed.Class())).Inc()
		return
	}
	if !m.counts(e.Key) {
		return
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.known[e.Key] && !m.beside(e) {
		m.end(e)
	}
}

// operation returns the failed operation on Redis that an event is about. What it did to a refresh
// is another event.
func operation(e tokencache.Event) (*tokencache.StoreError, bool) {
	if e.Reason != "" {
		return nil, false
	}
	return errors.AsType[*tokencache.StoreError](e.Err)
}

// beside counts what happens beside or within a refresh, and reports whether e was that.
func (m *Metrics) beside(e tokencache.Event) bool {
	app, kind := e.Key.App, e.Key.Kind
	switch e.Result {
	case tokencache.ResultFetched:
		m.fetched(e)
	case tokencache.ResultProbed:
		result := probeAccepted
		switch {
		case errors.Is(e.Err, tokencache.ErrRejected):
			result = probeRejected
		case e.Err != nil:
			result = probeUnknown
		}
		m.probes.WithLabelValues(app, kind, result).Inc()
	case tokencache.ResultLeaseWaited:
		m.leaseWait.WithLabelValues(kind).Observe(e.Took.Seconds())
	case tokencache.ResultLeaseLost:
		m.lost.WithLabelValues(app, kind).Inc()
	case tokencache.ResultAdopted:
		m.lag.WithLabelValues(kind).Observe(e.Took.Seconds())
	case tokencache.ResultEventMissed:
		m.missed.WithLabelValues(app, kind).Inc()
	case tokencache.ResultLeaseCapped:
		m.capped.WithLabelValues(app, kind).Inc()
	case tokencache.ResultDataLost:
		m.emptied.WithLabelValues(app, kind).Inc()
	default:
		return false
	}
	return true
}

// fetched counts a fetch.
func (m *Metrics) fetched(e tokencache.Event) {
	app, kind := e.Key.App, e.Key.Kind
	result := fetchOK
	if f, ok := errors.AsType[*tokencache.FetchError](e.Err); ok {
		result = fetchFailed
		if f.Unclear {
			result = fetchUnclear
		}
		m.failures.WithLabelValues(app, kind, oneOf(classes[:], f.Class)).Inc()
		m.errcodes.WithLabelValues(app, kind, errcodeLabel(f.Code)).Inc()
	}
	m.fetches.WithLabelValues(app, kind, oneOf(reasons[:], string(e.Reason)), result).Inc()
	m.fetchDuration.WithLabelValues(kind, result).Observe(e.Took.Seconds())
}

// end counts how a refresh or a report ended.
func (m *Metrics) end(e tokencache.Event) {
	app, kind := e.Key.App, e.Key.Kind
	if e.Reason == tokencache.ReasonReport {
		m.reports.WithLabelValues(app, kind, string(e.Result)).Inc()
	}
	switch e.Result {
	case tokencache.ResultNotCurrent, tokencache.ResultAccepted, tokencache.ResultUnknown:
		return // of a report that needed no refresh
	case tokencache.ResultRefused:
		m.lost.WithLabelValues(app, kind).Inc()
	}
	if e.Reason == "" {
		return
	}
	m.refreshes.WithLabelValues(app, kind, string(e.Reason), string(e.Result)).Inc()
	if e.Result != tokencache.ResultNoRedis { // which took as long as Redis was waited for
		m.duration.WithLabelValues(kind, string(e.Result)).Observe(e.Took.Seconds())
	}
}

// errcodeLabel makes a label of an errcode.
func errcodeLabel(code int) string {
	if code == 0 {
		return noErrcode
	}
	return oneOf(errcodes[:], strconv.Itoa(code))
}
