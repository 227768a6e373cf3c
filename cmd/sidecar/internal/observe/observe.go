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
	case tokencache.ResultAdded:
		m.Add(e.Key)
		return
	case tokencache.ResultDropped:
		m.Forget(e.Key)
		return
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
	if c := m.Of(e.Key); c != nil && !m.beside(c, e) {
		m.end(c, e)
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
func (m *Metrics) beside(c *Credential, e tokencache.Event) bool {
	switch e.Result {
	case tokencache.ResultFetched:
		m.fetched(c, e)
	case tokencache.ResultProbed:
		result := probeAccepted
		switch {
		case errors.Is(e.Err, tokencache.ErrRejected):
			result = probeRejected
		case e.Err != nil:
			result = probeUnknown
		}
		c.inc(slotProbes + index(probeResults[:], result))
	case tokencache.ResultLeaseWaited:
		m.leaseWait.WithLabelValues(e.Key.Kind).Observe(e.Took.Seconds())
	case tokencache.ResultLeaseLost:
		c.inc(slotLost)
	case tokencache.ResultAdopted:
		m.lag.WithLabelValues(e.Key.Kind).Observe(e.Took.Seconds())
	case tokencache.ResultEventMissed:
		c.inc(slotMissed)
	case tokencache.ResultLeaseCapped:
		c.inc(slotCapped)
	case tokencache.ResultDataLost:
		c.inc(slotEmptied)
	default:
		return false
	}
	return true
}

// fetched counts a fetch.
func (m *Metrics) fetched(c *Credential, e tokencache.Event) {
	result := fetchOK
	if f, ok := errors.AsType[*tokencache.FetchError](e.Err); ok {
		if f.Class == tokencache.ClassLimited {
			return // upstream was not asked
		}
		result = fetchFailed
		if f.Unclear {
			result = fetchUnclear
		}
		c.inc(slotFailures + index(classes[:], f.Class))
		c.inc(slotErrcodes + index(errcodes[:], errcodeLabel(f.Code)))
	}
	c.inc(slotFetches + index(fetchReasons[:], e.Reason)*len(fetchResults) + index(fetchResults[:], result))
	m.fetchDuration.WithLabelValues(e.Key.Kind, result).Observe(e.Took.Seconds())
}

// end counts how a refresh or a report ended.
func (m *Metrics) end(c *Credential, e tokencache.Event) {
	if e.Reason == tokencache.ReasonReport {
		c.inc(slotReports + index(reportOutcomes[:], e.Result))
	}
	switch e.Result {
	case tokencache.ResultNotCurrent, tokencache.ResultAccepted, tokencache.ResultUnknown:
		return // of a report that needed no refresh
	case tokencache.ResultRefused:
		c.inc(slotLost)
	}
	if e.Reason == "" {
		return
	}
	c.inc(slotRefreshes + index(refreshReasons[:], e.Reason)*len(refreshResults) + index(refreshResults[:], e.Result))
	if e.Result != tokencache.ResultNoRedis { // which took as long as Redis was waited for
		m.duration.WithLabelValues(e.Key.Kind, string(e.Result)).Observe(e.Took.Seconds())
	}
}

// errcodeLabel makes a label of an errcode.
func errcodeLabel(code int) string {
	if code == 0 {
		return noErrcode
	}
	return oneOf(errcodes[:], strconv.Itoa(code))
}
