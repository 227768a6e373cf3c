package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// file is the configuration file as it was written: nothing is checked but the shape. Empty and
// zero mean not given.
type file struct {
	listen, opsListen, namespace string
	callbackListen               string
	allowRemote                  bool
	socketMode                   string
	allowUpstreamHost            bool
	bearerTokenFile              string
	tls                          TLS
	redisURL, redisURLFile       string
	logLevel, logFormat          string
	defaultApp                   string
	drainMax, drainQuiet         string
	quit                         bool
	keptBodies                   int
	metricsApps                  string
	apps                         []rawApp
	platforms                    []rawPlatform
	vault                        Vault

	// broken says that keys were refused, so that one that seems to be missing may be there.
	broken bool
}

// rawApp is an app as it was written, in the file or in the environment.
type rawApp struct {
	App
	secret    string // by value: only from the environment
	secretEnv string // the variable that holds the secret
	broken    bool   // as in file
	at        func(key string) string
}

// parse reads the one YAML document of data, which name calls by its path. It walks the nodes
// instead of decoding into structs, because yaml's own errors repeat values, which may be secret,
// and know no paths.
func parse(name string, data []byte, n *notes) file {
	w := walker{n}
	before := len(n.mistakes)
	f := file{}
	if doc := w.document(name, data); doc != nil {
		f = w.file(name, doc)
	}
	f.broken = len(n.mistakes) > before
	return f
}

// quoted finds a name that yaml's errors repeat from the text, such as an unknown anchor.
var quoted = regexp.MustCompile("['`][A-Za-z0-9_-]{2,}['`]")

// document returns the root of the one document, or nil if there is none.
func (w walker) document(name string, data []byte) *yaml.Node {
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		w.mistake(name, "is not YAML: %s", quoted.ReplaceAllString(text, "[...]"))
		return nil
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		w.mistake(name, "holds more than one YAML document: keep one of them")
		return nil
	}
	return doc.Content[0]
}

// walker reads nodes into Go values and notes what does not fit. Null means not given.
type walker struct{ *notes }

// fields says, for each key of a mapping, what to do with its value.
type fields map[string]func(n *yaml.Node, path string)

func (w walker) file(name string, n *yaml.Node) file {
	var f file
	if isNull(n) {
		return f
	}
	if n.Kind != yaml.MappingNode {
		w.mistake(name, "must hold keys and values, as in \"namespace: wxtoken\"")
		return f
	}
	w.mapping(n, "", fields{
		"listen":              w.text(&f.listen),
		"ops_listen":          w.text(&f.opsListen),
		"callback_listen":     w.text(&f.callbackListen),
		"namespace":           w.text(&f.namespace),
		"socket_mode":         w.text(&f.socketMode),
		"allow_remote":        w.yesno(&f.allowRemote),
		"allow_upstream_host": w.yesno(&f.allowUpstreamHost),
		"bearer_token_file":   w.text(&f.bearerTokenFile),
		"tls_listen":          w.text(&f.tls.Listen),
		"tls_cert_file":       w.text(&f.tls.CertFile),
		"tls_key_file":        w.text(&f.tls.KeyFile),
		"tls_trust_dir":       w.text(&f.tls.TrustDir),
		"tls_state_dir":       w.text(&f.tls.StateDir),
		"log": func(n *yaml.Node, path string) {
			w.mapping(n, path, fields{"level": w.text(&f.logLevel), "format": w.text(&f.logFormat)})
		},
		"redis": func(n *yaml.Node, path string) {
			w.mapping(n, path, fields{"url": w.text(&f.redisURL), "url_file": w.text(&f.redisURLFile)})
		},
		"drain": func(n *yaml.Node, path string) {
			w.mapping(n, path, fields{"max": w.text(&f.drainMax), "quiet": w.text(&f.drainQuiet)})
		},
		"quit":         w.yesno(&f.quit),
		"kept_bodies":  w.count(&f.keptBodies),
		"metrics_apps": w.text(&f.metricsApps),
		"default_app":  w.text(&f.defaultApp),
		"apps": func(n *yaml.Node, path string) {
			w.sequence(n, path, func(n *yaml.Node, path string) {
				f.apps = append(f.apps, w.app(n, path))
			})
		},
		"platforms": func(n *yaml.Node, path string) {
			w.sequence(n, path, func(n *yaml.Node, path string) {
				f.platforms = append(f.platforms, w.platform(n, path))
			})
		},
		"vault": func(n *yaml.Node, path string) {
			w.mapping(n, path, fields{"key_file": w.text(&f.vault.KeysFile), "url_file": w.text(&f.vault.URLFile), "volatile": w.yesno(&f.vault.Volatile)})
		},
	})
	return f
}

func (w walker) app(n *yaml.Node, path string) rawApp {
	a := rawApp{at: func(key string) string { return join(path, key) }}
	before := len(w.mistakes)
	if isNull(n) {
		w.mistake(path, "is empty (line %d)", n.Line)
	} else {
		w.mapping(n, path, fields{
			"id":              w.text(&a.ID),
			"agent":           w.text(&a.Agent),
			"alias":           w.text(&a.Alias),
			"platform":        w.text(&a.Platform),
			"endpoint":        w.text(&a.Endpoint),
			"api_base":        w.text(&a.APIBase),
			"api_fallbacks":   w.texts(&a.APIFallbacks),
			"secret_file":     w.text(&a.SecretFile),
			"secret_env":      w.text(&a.secretEnv),
			"tickets":         w.texts(&a.Tickets),
			"probe":           w.text(&a.Probe),
			"margin":          w.duration(&a.Margin),
			"fetches_per_day": w.count(&a.FetchesPerDay),
			"reports_per_day": w.count(&a.ReportsPerDay),
			"require_secret":  w.yesno(&a.RequireSecret),
		})
	}
	a.broken = len(w.mistakes) > before
	return a
}

// mapping hands each value of n to the function of its key.
func (w walker) mapping(n *yaml.Node, path string, known fields) {
	if n.Kind != yaml.MappingNode {
		w.mistake(path, "needs keys and values (line %d)%s", n.Line, noAliases(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		read, ok := known[key.Value]
		switch first := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || !ok:
			w.unknown(key, path, known)
		case first != 0:
			w.mistake(at, "is given twice (lines %d and %d)", first, key.Line)
		case !isNull(value):
			read(value, at)
		}
		seen[key.Value] = key.Line
	}
}

// refused says what to do instead of what people write at first.
var refused = map[string]string{
	"secret":       "secrets are not read from this file: use secret_file, or secret_env for an environment variable",
	"appsecret":    "secrets are not read from this file: use secret_file, or secret_env for an environment variable",
	"app_secret":   "secrets are not read from this file: use secret_file, or secret_env for an environment variable",
	"bearer_token": "secrets are not read from this file: use bearer_token_file",
	"password":     "secrets are not read from this file: use url_file for a URL with its password, or the variable REDIS_URL",
	"<<":           "merge keys are not supported: write the keys out",
}

// printable is what a key has to look like to be named in a message. A secret that lost its key, as
// in {secret:0123...}, is a key to YAML; the secrets of WeChat and WeCom have 32 and 43 characters.
var printable = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,30}$`)

func (w walker) unknown(key *yaml.Node, path string, known fields) {
	if advice, ok := refused[key.Value]; ok {
		w.mistake(join(path, key.Value), "%s (line %d)", advice, key.Line)
		return
	}
	if key.Kind != yaml.ScalarNode || !printable.MatchString(key.Value) {
		w.mistake(join(path, "?"), "unknown key (line %d)", key.Line)
		return
	}
	hint := ""
	if near := Nearest(key.Value, slices.Sorted(maps.Keys(known))); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	w.mistake(join(path, key.Value), "unknown key (line %d)%s", key.Line, hint)
}

func (w walker) sequence(n *yaml.Node, path string, item func(n *yaml.Node, path string)) {
	if n.Kind != yaml.SequenceNode {
		w.mistake(path, "needs a list (line %d)%s", n.Line, noAliases(n))
		return
	}
	for i, c := range n.Content {
		item(c, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (w walker) text(to *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		// Numbers and dates are texts without quotes: agent: 1000002.
		textual := []string{"!!str", "!!int", "!!float", "!!timestamp"}
		if n.Kind != yaml.ScalarNode || !slices.Contains(textual, n.ShortTag()) {
			w.mistake(path, "needs a text (line %d)%s", n.Line, noAliases(n))
			return
		}
		*to = n.Value
	}
}

func (w walker) texts(to *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		w.sequence(n, path, func(n *yaml.Node, path string) {
			var s string
			w.text(&s)(n, path)
			*to = append(*to, s)
		})
	}
}

func (w walker) yesno(to *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			w.mistake(path, "needs true or false (line %d)%s", n.Line, noAliases(n))
			return
		}
		*to = strings.EqualFold(n.Value, "true")
	}
}

func (w walker) count(to *int) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		i, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || i < 0 {
			w.mistake(path, "needs a whole number, 0 or more (line %d)%s", n.Line, noAliases(n))
			return
		}
		*to = i
	}
}

func (w walker) duration(to *time.Duration) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		d, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			w.mistake(path, "needs a duration with its unit, such as 90s or 1m30s (line %d)%s", n.Line, noAliases(n))
			return
		}
		*to = d
	}
}

// noAliases explains a mismatch that comes from *name. References are refused because a few of
// them make a small file huge, and this file is short enough without them.
func noAliases(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode {
		return ": references such as *name are not supported, write the value out"
	}
	return ""
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
