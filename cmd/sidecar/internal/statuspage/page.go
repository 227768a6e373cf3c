package statuspage

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

//go:embed status.css
var statusCSS markup

// statusPolicy lets the page be nothing but itself: no script, no request, no frame around it.
var statusPolicy = func() string {
	sum := sha256.Sum256([]byte(statusCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	html := web.WantsHTML(r.Header["Accept"])
	switch f := query.Get("format"); f {
	case "":
	case "html", "json":
		html = f == "html"
	default:
		web.Fail(w, r, web.BadRequest("format is html or json."))
		return
	}
	header := w.Header()
	header["Vary"] = []string{"Accept"}
	if !html {
		web.Write(w, r, http.StatusOK, h.look())
		return
	}
	header["Content-Security-Policy"] = []string{statusPolicy}
	header["Referrer-Policy"] = []string{"no-referrer"}
	web.Write(w, r, http.StatusOK, newPage(h.look(), refresh(query)))
}

// refreshEvery is how often the page loads itself again if it was asked to, in seconds.
const refreshEvery = 10

// refresh returns the seconds after which the page is to load itself again, 0 for never.
func refresh(query url.Values) int {
	if !query.Has("refresh") {
		return 0
	}
	n, err := strconv.Atoi(query.Get("refresh"))
	if err != nil {
		return refreshEvery
	}
	return min(max(n, 2), 3600)
}

// page is the status as people are shown it.
type page struct {
	Status
	title   string
	summary string
	now     string // by this host's clock
	refresh int    // in seconds; 0: never
	scale   int64  // of the bars, in seconds
	rows    []row
	advice  map[int]string // on the journal's errcodes
}

// row is one app.
type row struct {
	id, alias   string
	level       level
	credentials []cell
}

// cell is one credential.
type cell struct {
	Credential
	level level
	bar   *bar
}

// bar is the life of a value, as percentages of the scale. What is "" is not drawn.
type bar struct {
	left, renew, margin string
}

// commonLife is the scale of the bars: what WeChat gives, so that all bars are alike.
const commonLife = 2 * 3600

func newPage(s Status, refresh int) *page {
	p := &page{Status: s, refresh: refresh, now: time.Now().UTC().Format("15:04:05 UTC"),
		scale: commonLife, advice: map[int]string{}}
	worst := map[string]level{}
	for _, one := range s.Problems {
		for _, c := range one.Credentials {
			if l, ok := worst[c]; !ok || one.Level.rank() < l.rank() {
				worst[c] = one.Level
			}
		}
	}
	for _, a := range s.Apps {
		for _, c := range a.Credentials {
			p.scale = max(p.scale, c.ExpiresIn)
		}
	}
	for _, a := range s.Apps {
		r := row{id: a.ID, alias: a.Alias, level: levelWell}
		for _, c := range a.Credentials {
			l := cmp.Or(worst[a.ID+"/"+c.Kind], levelWell)
			if l.rank() < r.level.rank() {
				r.level = l
			}
			r.credentials = append(r.credentials, cell{c, conditionLevel(c.Condition, l), p.life(c)})
		}
		p.rows = append(p.rows, r)
	}
	slices.SortStableFunc(p.rows, func(a, b row) int { return cmp.Compare(a.level.rank(), b.level.rank()) })
	if s.Journal != nil {
		platforms := map[string]apps.Platform{}
		for _, a := range s.Apps {
			platforms[a.ID] = a.platform
		}
		for _, e := range s.Journal.Entries {
			if e.Errcode != 0 {
				id := e.App
				if _, ok := platforms[id]; !ok {
					id, _, _ = strings.Cut(id, ":") // an account's API is its platform's
				}
				p.advice[e.Errcode] = advice(platforms[id], e.Kind, e.Errcode)
			}
		}
	}
	p.summarize()
	return p
}

// conditionLevel is how a condition looks. What is wrong beside it is among the problems.
func conditionLevel(c condition, worst level) level {
	switch c {
	case conditionFresh, conditionDue:
		return levelWell
	case conditionStale, conditionDoubt:
		return levelAttention
	}
	return worst
}

// called returns an app, or an app's credential as app/kind, under the name that people gave the
// app.
func (p *page) called(name string) string {
	app, kind, _ := strings.Cut(name, "/")
	for _, a := range p.Apps {
		if a.ID == app && a.Alias != "" {
			return strings.TrimSuffix(a.Alias+"/"+kind, "/")
		}
	}
	return name
}

// summarize says everything in one sentence.
func (p *page) summarize() {
	credentials, without, lacking, unserved := 0, 0, 0, 0
	for _, one := range p.Platforms {
		unserved += one.Unserved
	}
	for _, a := range p.Apps {
		before := without
		for _, c := range a.Credentials {
			credentials++
			if c.State == "missing" || c.Rejected {
				without++
			}
		}
		if without > before {
			lacking++
		}
	}
	lack := text.Count(without, "credential") + " cannot be served."
	if len(p.Apps) > 1 {
		lack = fmt.Sprintf("%d of %s cannot be served.", lacking, text.Count(len(p.Apps), "app"))
	}
	switch {
	case p.Level == levelTrouble:
		p.title, p.summary = "Trouble", lack
	case p.Level == levelAttention && unserved > 0:
		p.title, p.summary = "Attention", text.Count(unserved, "account")+" of a platform cannot be served."
	case p.Level == levelAttention && without > 0:
		p.title, p.summary = "Starting", "The credentials are being looked for."
	case p.Level == levelAttention:
		p.title, p.summary = "Attention", fmt.Sprintf("Everything is served, but %s to look at.", things(len(p.Problems)))
	case credentials == 1:
		p.title, p.summary = "All well", "One credential, and it is good."
	default:
		p.title, p.summary = "All well", fmt.Sprintf("%s of %s, all good.", text.Count(credentials, "credential"), text.Count(len(p.Apps), "app"))
	}
}

func things(n int) string {
	if n == 1 {
		return "there is one thing"
	}
	return fmt.Sprintf("there are %d things", n)
}

// life returns nil for what has none.
func (p *page) life(c Credential) *bar {
	if c.State == "missing" {
		return nil
	}
	percent := func(s int64) string {
		return strconv.FormatFloat(100*float64(min(max(0, s), p.scale))/float64(p.scale), 'f', 2, 64) + "%"
	}
	b := &bar{left: percent(c.ExpiresIn)}
	if c.Condition == conditionFresh && c.Backoff == 0 {
		b.renew = percent(c.ExpiresIn - c.RenewIn)
	}
	if c.LeavesRedisIn > 0 {
		b.margin = percent(c.ExpiresIn - c.LeavesRedisIn)
	}
	return b
}
