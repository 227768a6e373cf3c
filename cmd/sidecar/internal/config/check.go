package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

const (
	minBearer = 16 // characters of a bearer token

	// A margin below a second is lost in Redis' own precision. A classic refresh first cuts the
	// life of the current value to 4 minutes: a greater margin would take the key away at once.
	minMargin = time.Second
	maxMargin = 3 * time.Minute

	maxSocketPath = 103 // bytes: what every system takes
)

// app checks one app and fills in its defaults.
func (l *loader) app(r rawApp) App {
	a := r.App
	l.names(r)
	if a.Platform == "" {
		a.Platform = PlatformWeChat
	}
	switch a.Platform {
	case PlatformWeChat:
		l.weChat(r, &a)
	case PlatformWeCom:
		l.weCom(r, &a)
	default: // what else is wrong depends on the platform
		l.oneOf(r.at("platform"), a.Platform, PlatformWeChat, PlatformWeCom)
	}
	if a.APIBase != "" {
		a.APIBase = l.apiBase(r.at("api_base"), a.APIBase)
	}
	for i, base := range r.APIFallbacks {
		a.APIFallbacks[i] = l.apiBase(r.at("api_fallbacks["+strconv.Itoa(i)+"]"), base)
	}
	if len(a.APIFallbacks) == 0 && a.APIBase == DefaultWeChatBase {
		a.APIFallbacks = []string{defaultFallback}
	}
	a.Secret = l.appSecret(r)
	if a.Probe == "" {
		a.Probe = ProbeCallbackIP
	}
	for i, t := range a.Tickets {
		if slices.Contains(a.Tickets[:i], t) {
			l.mistake(r.at("tickets"), "names a ticket twice")
			break
		}
	}
	if a.Margin != 0 && (a.Margin < minMargin || a.Margin > maxMargin) {
		l.mistake(r.at("margin"), "must be 1s to 3m, or absent for the default")
	}
	return a
}

func (l *loader) weChat(r rawApp, a *App) {
	if a.Endpoint == "" {
		a.Endpoint = EndpointStable
	}
	l.oneOf(r.at("endpoint"), a.Endpoint, EndpointStable, EndpointClassic)
	if a.APIBase == "" {
		a.APIBase = DefaultWeChatBase
	}
	if a.Agent != "" {
		l.mistake(r.at("agent"), "only apps with platform: wecom have an agent")
	}
	l.tickets(r, TicketJSAPI, TicketCard)
	if a.Probe != "" {
		l.oneOf(r.at("probe"), a.Probe, ProbeCallbackIP, ProbeMenu, ProbeOff)
	}
}

func (l *loader) weCom(r rawApp, a *App) {
	if a.Endpoint != "" {
		l.mistake(r.at("endpoint"), "WeCom has no choice of endpoints: remove it")
	}
	if a.APIBase == "" {
		a.APIBase = DefaultWeComBase
	}
	if a.Agent == "" && !r.broken {
		l.mistake(r.at("agent"), "missing: each agent of a WeCom corporation has a secret of its own")
	} else if a.Agent != "" && !isName(a.Agent) {
		l.mistake(r.at("agent"), notAName)
	}
	l.tickets(r, TicketJSAPI, TicketAgentConfig)
	if a.Probe != "" {
		l.oneOf(r.at("probe"), a.Probe, ProbeCallbackIP, ProbeOff)
	}
}

func (l *loader) tickets(r rawApp, allowed ...string) {
	for i, t := range r.Tickets {
		l.oneOf(r.at("tickets["+strconv.Itoa(i)+"]"), t, allowed...)
	}
}

// appSecret reads the secret from the one place that was named.
func (l *loader) appSecret(r rawApp) secret.String {
	var given []string
	for _, s := range []struct{ key, value string }{{"secret", r.secret}, {"secret_env", r.secretEnv}, {"secret_file", r.SecretFile}} {
		if s.value != "" {
			given = append(given, s.key)
		}
	}
	if len(given) == 0 {
		if !r.broken {
			l.missingSecret(r)
		}
		return secret.String{}
	}
	if len(given) > 1 {
		l.mistake(r.at(given[1]), "%s is given as well: remove one of them", r.at(given[0]))
		return secret.String{}
	}
	switch given[0] {
	case "secret":
		return l.checkSecret(r.secret, r.at("secret"), "")
	case "secret_env":
		// The name is not repeated: it may be the secret itself.
		value := l.env(r.secretEnv)
		if value == "" {
			l.mistake(r.at("secret_env"), "the environment variable that it names is empty or not set")
			return secret.String{}
		}
		return l.checkSecret(value, r.at("secret_env"), "the environment variable that it names: ")
	default:
		return l.secretFile(r.SecretFile, r.at("secret_file"))
	}
}

func (l *loader) missingSecret(r rawApp) {
	if variable := r.at("secret"); variable == "WECHAT_SECRET" {
		l.mistake(variable, "missing: set it, or WECHAT_SECRET_FILE to the path of a file that holds the secret")
		return
	}
	l.mistake(r.at("secret_file"), "missing: name a file that holds the secret, or an environment variable in secret_env")
}

// names checks what becomes part of Redis keys and URL paths.
func (l *loader) names(r rawApp) {
	switch {
	case r.ID == "" && !r.broken:
		l.mistake(r.at("id"), "missing: the appid, or the corpid of a WeCom corporation")
	case r.ID != "" && !isName(r.ID):
		l.mistake(r.at("id"), notAName)
	}
	if r.Alias != "" && !isName(r.Alias) {
		l.mistake(r.at("alias"), notAName)
	}
}

// distinct checks that a name leads to one app.
func (l *loader) distinct(apps []rawApp) {
	ids, aliases, credentials := map[string]string{}, map[string]string{}, map[string]string{}
	for _, r := range apps {
		if r.ID == "" {
			continue
		}
		ids[r.ID] = r.at("id")
		id := r.CredentialID()
		if first, ok := credentials[id]; ok {
			l.mistake(r.at("id"), "the same app as %s: give it once", first)
			continue
		}
		credentials[id] = r.at("id")
	}
	for _, r := range apps {
		if r.Alias == "" {
			continue
		}
		if first, ok := aliases[r.Alias]; ok {
			l.mistake(r.at("alias"), "the same as %s: an alias names one app", first)
			continue
		}
		aliases[r.Alias] = r.at("alias")
		if id, ok := ids[r.Alias]; ok {
			l.mistake(r.at("alias"), "the same as %s: an alias must differ from every id", id)
		}
	}
}

// defaultApp finds the app that default_app names; without it, the only one.
func (l *loader) defaultApp(name string, apps []App) string {
	if name == "" && len(apps) == 1 {
		return apps[0].CredentialID()
	}
	for _, a := range apps {
		if name != "" && (name == a.CredentialID() || name == a.Alias) {
			return a.CredentialID()
		}
	}
	if name != "" {
		l.mistake("default_app", "is neither an id (of WeCom, corpid:agent) nor an alias of an app that is configured here")
	}
	return ""
}

// apiBase returns the URL without its trailing slash.
func (l *loader) apiBase(at, base string) string {
	plain := l.plainURL(at, base, DefaultWeChatBase)
	if u, err := url.Parse(plain); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		l.warn(at, "http sends the secret and all tokens in clear: use https")
	}
	return plain
}

// plainURL returns the URL without its trailing slash, or "" if it is none to which a path or a
// query can be added.
func (l *loader) plainURL(at, text, example string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		l.mistake(at, "must be an absolute URL, such as %s", example)
		return ""
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		l.mistake(at, "must be a URL without user, query and fragment")
		return ""
	}
	return strings.TrimRight(text, "/")
}

func (l *loader) oneOf(at, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		l.mistake(at, "must be one of %s", strings.Join(allowed, ", "))
	}
}

const notAName = "must be 1 to 64 letters, digits and . _ -"

// isName reports whether s can be a part of a Redis key, a part of a pattern of a Redis ACL and one
// segment of a URL path without being mistaken for anything else.
func isName(s string) bool {
	return s != "" && len(s) <= 64 && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// isNamespace is isName with colons, by which Redis keys are grouped.
func isNamespace(s string) bool {
	return len(s) <= 64 && isName(strings.ReplaceAll(s, ":", "_"))
}

// CheckListen returns what is wrong with a listen address, if anything. The error does not repeat
// it.
func CheckListen(address string) error {
	_, err := checkListen(address)
	return err
}

// checkListen reports whether only this host can reach a listen address.
func checkListen(address string) (isLocal bool, err error) {
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		if !path.IsAbs(socket) || len(socket) > maxSocketPath {
			return false, errors.New("unix: needs an absolute path of at most 103 bytes, as in unix:/run/wxtoken/http.sock")
		}
		return true, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return false, errors.New("must be host:port or unix:/path, as in 127.0.0.1:7200")
	}
	return isLoopback(host), nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// anyPort reports whether the system chooses the port of a listen address, each time another one.
func anyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == "0"
}

// Errors is what [Load] returns: every mistake that it found, at least one. Find it with
// errors.AsType.
type Errors struct{ Mistakes []Mistake }

// Mistake is one thing to correct. Neither part holds a value that was configured.
type Mistake struct {
	// Path is the place as its author wrote it: apps[1].secret_file in the file, REDIS_URL in the
	// environment, --listen among the flags. A mistake of the whole file has the path of the file.
	Path string
	// Text says what is wrong and what to do.
	Text string
}

// String returns the mistake as one line.
func (m Mistake) String() string { return m.Path + ": " + m.Text }

// Error returns one mistake on one line, more of them on one line each below a heading.
func (e *Errors) Error() string {
	if len(e.Mistakes) == 1 {
		return "config: " + e.Mistakes[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "config: %d mistakes", len(e.Mistakes))
	for _, m := range e.Mistakes {
		b.WriteString("\n  " + m.String())
	}
	return b.String()
}

// notes collects what Load finds. The zero value is ready.
type notes struct {
	mistakes []Mistake
	warnings []string
	files    []fileRead
}

func (n *notes) mistake(path, format string, args ...any) {
	n.mistakes = append(n.mistakes, Mistake{path, fmt.Sprintf(format, args...)})
}

func (n *notes) warn(path, format string, args ...any) {
	n.warnings = append(n.warnings, Mistake{path, fmt.Sprintf(format, args...)}.String())
}

// Nearest returns the known word that word was probably meant to be, or "" if none is near.
func Nearest(word string, known []string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	best, least := "", max(1, len(word)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return best
	}
	for _, k := range known {
		if strings.HasSuffix(word, k) { // appid, corpid
			return k
		}
	}
	return ""
}

// distance counts the bytes to insert, delete or replace to get from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(d, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
