package observe

import (
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// tracked are the credentials and apps that exist. The zero value is not ready.
//
// What a credential or an app has counted when it is forgotten moves to gone and goneApps, under
// the same hold of mu that removes it. So a sum over all never decreases, which Prometheus would
// take for a restart and count as an increase by all of it.
type tracked struct {
	apps     map[string]*app
	noApp    *app // calls of the proxy for no app
	gone     map[string]*[slots]uint64
	goneApps [appSlots]uint64
}

// Together makes credentials share the series of what f returns for them: the accounts of a
// third-party platform, say, which are too many for series of their own. Call it before anything is
// counted. Without it, each has its own.
func (m *Metrics) Together(f func(tokencache.Key) tokencache.Key) { m.together = f }

// Accounts ends the label app of the series that all accounts of a platform share: it is the
// platform's id and this.
const Accounts = ":*"

// series returns which series a credential has.
func (m *Metrics) series(k tokencache.Key) tokencache.Key {
	if m.together == nil {
		return k
	}
	return m.together(k)
}

// Of returns the counters of a credential, or nil if it is not counted. It takes no lock.
func (m *Metrics) Of(k tokencache.Key) *Credential {
	// Most pods have one app.
	if c := m.recent.Load(); c != nil && c.owner.is(k.App, k.Kind) && !c.forgotten.Load() {
		return c
	}
	if c, ok := m.credentials.Load(k); ok {
		c := c.(*Credential)
		m.recent.Store(c)
		return c
	}
	if c, ok := m.credentials.Load(m.series(k)); ok {
		return c.(*Credential)
	}
	return nil
}

// Track sets the credentials that exist: their counters start at 0, and those of credentials that
// are gone disappear. Events and reads of others are not counted. Call it before each
// [tokencache.Cache.Set].
func (m *Metrics) Track(keys ...tokencache.Key) {
	keep := make(map[tokencache.Key]bool, len(keys))
	for _, k := range keys {
		keep[k] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range keep {
		m.add(k)
	}
	for k := range m.credentials.Range {
		if k := k.(tokencache.Key); !keep[k] {
			m.forget(k)
		}
	}
}

// Add begins to count credentials until the next Track, in time that does not depend on how many
// there are.
func (m *Metrics) Add(keys ...tokencache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		m.add(m.series(k))
	}
}

// Forget ends counting credentials, in time that does not depend on how many remain. What several
// share stays.
func (m *Metrics) Forget(keys ...tokencache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		m.forget(k)
	}
}

// add returns the counters of k, new ones if there are none. The caller holds m.mu.
func (m *Metrics) add(k tokencache.Key) *Credential {
	if c, ok := m.credentials.Load(k); ok {
		return c.(*Credential)
	}
	c := &Credential{owner: newOwner(k.App, k.Kind), app: m.refer(k.App)}
	m.credentials.Store(k, c)
	return c
}

// forget removes the counters of k. An event that found them before still counts there, which no
// scrape shows. The caller holds m.mu.
func (m *Metrics) forget(k tokencache.Key) {
	removed, ok := m.credentials.LoadAndDelete(k)
	if !ok {
		return
	}
	c := removed.(*Credential)
	c.forgotten.Store(true)
	gone := m.tracked.gone[k.Kind]
	if gone == nil {
		gone = new([slots]uint64)
		m.tracked.gone[k.Kind] = gone
	}
	for slot := range gone {
		gone[slot] += c.load(slot)
	}
	m.release(k.App)
}

// refer returns the app with this name, for one more credential. The caller holds m.mu.
func (m *Metrics) refer(name string) *app {
	a := m.tracked.apps[name]
	if a == nil {
		a = &app{owner: newOwner(name, "")}
		m.tracked.apps[name] = a
	}
	a.refs++
	return a
}

// release is the reverse of refer. An app without credentials is forgotten. The caller holds m.mu.
func (m *Metrics) release(name string) {
	a := m.tracked.apps[name]
	if a.refs--; a.refs > 0 {
		return
	}
	delete(m.tracked.apps, name)
	for slot := range a.counts {
		m.tracked.goneApps[slot] += a.counts[slot].Load()
	}
}
