package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// redisForm returns the form of a Redis URL, or what is wrong with it. The text repeats nothing of
// the URL but names of options that go-redis knows: its own errors repeat more.
func redisForm(raw string) (form, wrong string) {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || scheme != "redis" && scheme != "rediss" && scheme != "unix" {
		return "", "must start with redis://, rediss:// or unix://"
	}
	// A password with a raw / ? or # ends the host too early, and its rest would pass for a path
	// or for options.
	if end := strings.IndexAny(rest, "/?#"); end >= 0 && strings.ContainsAny(rest[end:], "@#") {
		return "", "has an @ or # after its host: in user, password and options write / ? # and @ as %2F %3F %23 and %40"
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", "is not a valid URL: the user and the password must be percent-encoded"
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", "has options that are not percent-encoded"
	}
	form = formOf(q)
	db := strings.Trim(u.Path, "/")
	_, err = strconv.ParseUint(db, 10, 16)
	switch {
	case scheme == "unix" && form != RedisSingle:
		return "", "with unix:// is for one server: remove the options master_name and addr"
	case form == RedisSentinel && q.Get("master_name") == "":
		return "", "has an empty master_name"
	case scheme != "unix" && db != "" && err != nil:
		return "", "must end in the number of a database, such as /0"
	case form == RedisCluster && strings.Trim(db, "0") != "":
		return "", "has a database other than 0, the only one of a cluster"
	}
	for _, option := range fromReplicas {
		if form == RedisSentinel && q.Has(option) {
			return "", "has the option " + option + ", but the sidecar reads and writes at the master: remove it"
		}
	}
	for _, option := range ownOptions {
		if q.Has(option) {
			return "", "has the option " + option + ", which the sidecar sets itself: remove it"
		}
	}
	if protocol := q.Get("protocol"); protocol != "" && protocol != "2" && protocol != "3" {
		return "", "has a value that does not fit its option protocol" // go-redis takes any number for 3
	}
	if parseRedis(form, raw) == nil {
		return form, ""
	}
	return "", wrongOption(form, scheme+"://host/?", u.RawQuery)
}

// fromReplicas are options of go-redis for Sentinels by which a client asks replicas. In a Cluster
// they are harmless: scripts go to the master.
var fromReplicas = [...]string{"replica_only", "use_disconnected_replicas", "route_by_latency", "route_by_latency_tolerance", "route_randomly"}

// ownOptions are options of go-redis whose values the sidecar's budgets and its ACL rest on.
var ownOptions = [...]string{"context_timeout_enabled", "disableIdentity", "identitySuffix", "dialer_retries", "dialer_retry_timeout"}

// redisRisks says what a URL that redisForm accepts exposes on the way to Redis.
func redisRisks(raw string, only string) (risks []string) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil
	}
	hosts := []string{u.Hostname()}
	for _, addr := range u.Query()["addr"] {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		hosts = append(hosts, host)
	}
	isRemote := slices.ContainsFunc(hosts, func(host string) bool { return host != "" && !isLoopback(host) })
	if only == TLSSentinels && isRemote {
		risks = append(risks, "with tls_only="+TLSSentinels+" all tokens go to another host in clear: let the servers speak TLS, or use a network that nothing else can read")
	}
	if u.Scheme == "redis" && isRemote && holdsPassword(raw) {
		risks = append(risks, "the password and all tokens go to another host in clear: use rediss://, or a network that nothing else can read")
	}
	if off, err := strconv.ParseBool(u.Query().Get("skip_verify")); u.Scheme == "rediss" && err == nil && off {
		risks = append(risks, "with skip_verify an attacker on the way can take Redis' place, and gets the password and all tokens: name its CA in tls_ca_file instead")
	}
	return risks
}

func formOf(options url.Values) string {
	switch {
	case options.Has("master_name"):
		return RedisSentinel
	case options.Has("addr"):
		return RedisCluster
	}
	return RedisSingle
}

func parseRedis(form, raw string) error {
	var err error
	switch form {
	case RedisSentinel:
		_, err = redis.ParseFailoverURL(raw)
	case RedisCluster:
		_, err = redis.ParseClusterURL(raw)
	default:
		_, err = redis.ParseURL(raw)
	}
	return err
}

// wrongOption finds the option that go-redis refuses by asking it about one at a time. It names
// only one that go-redis accepts without a value, because an unknown name may be a piece of a
// password that was not percent-encoded.
func wrongOption(form, base, query string) string {
	for i, pair := range strings.Split(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		switch {
		case parseRedis(form, base+pair) == nil:
		case key == "addr" || parseRedis(form, base+key+"=") == nil:
			return "has a value that does not fit its option " + key
		default:
			return "has an unknown option, number " + strconv.Itoa(i+1) + " after the ?, for the form " + form
		}
	}
	return "is not one that go-redis takes"
}

// holdsPassword reports whether a URL that redisForm accepts carries a password.
func holdsPassword(raw string) bool {
	return len(Redis{URL: secret.New(raw)}.Secrets()) > 0
}

// Secrets returns the passwords in the URL: those of Redis and of the Sentinels. A text that came
// from Redis may repeat them.
func (r Redis) Secrets() []secret.String {
	u, err := url.Parse(r.URL.Reveal())
	if err != nil {
		return nil
	}
	var all []secret.String
	if password, set := u.User.Password(); set {
		all = append(all, secret.New(password))
	}
	for _, password := range u.Query()["password"] {
		all = append(all, secret.New(password))
	}
	return all
}
