package tokencache

import "github.com/wxtoken/sidecar/pkg/secret"

// Lookup returns which credential a value is, or was until lately. Values are compared in constant
// time. It looks at all credentials, so it is not for the hot path.
func (c *Cache) Lookup(value secret.String) (Key, bool) {
	if value.Empty() {
		return Key{}, false
	}
	for k, cr := range *c.creds.Load() {
		if cr.snapshot.Load().value.Equal(value) || cr.replaced(value) {
			return k, true
		}
	}
	return Key{}, false
}
