package statuspage

import (
	"cmp"
	"strconv"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

var typeHTML = []string{"text/html; charset=utf-8"}

// AppendBody writes the page by hand. A template would make the program 9 MB larger: see
// TestTheProgramHasNoTemplates.
func (p *page) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	w := &pageWriter{buf}
	p.putHead(w)
	w.put("<body>\n")
	p.putHeader(w)
	w.put("<main>\n")
	p.putBanner(w)
	p.putProblems(w)
	p.putApps(w)
	p.putPlatforms(w)
	w.put(`<div class="cards">` + "\n")
	p.putRedis(w)
	p.putReplicas(w)
	p.putConfiguration(w)
	w.put("</div>\n")
	p.putJournal(w)
	w.put("</main>\n</body>\n</html>\n")
	return w.body, typeHTML
}

func (p *page) putHead(w *pageWriter) {
	w.put(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
`)
	if p.refresh != 0 {
		w.put(`<meta http-equiv="refresh" content="{}">`+"\n", strconv.Itoa(p.refresh))
	}
	w.put(`<link rel="icon" href="data:,">` + "\n")
	w.put(`<title>{} · wxtoken`, p.title)
	if p.Replica != "" {
		w.put(` on {}`, p.Replica)
	}
	w.put("</title>\n")
	w.put("<style>" + statusCSS + "</style>\n") // to the byte what the policy's hash is of
	w.put("</head>\n")
}

func (p *page) putHeader(w *pageWriter) {
	w.put(`<header>
<h1>wxtoken</h1>
<p class="where">`)
	if p.Replica != "" {
		w.put(`<code>{}</code> `, p.Replica)
	}
	w.put(`<span>up {}</span> <span>as of {}</span></p>`+"\n", text.Span(p.Uptime), p.now)
	w.put(`<nav aria-label="This page">`)
	if p.refresh != 0 {
		w.put(`<a href="?format=html">Stop refreshing</a>`)
	} else {
		every := strconv.Itoa(refreshEvery)
		w.put(`<a href="?format=html&amp;refresh={}">Refresh every {} s</a>`, every, every)
	}
	w.put(`
<a href="?format=json">JSON</a>
</nav>
</header>
`)
}

func (p *page) putBanner(w *pageWriter) {
	w.put(`<section class="banner {}" aria-label="Summary">`+"\n", string(p.Level))
	w.put(`<p role="status"><span class="sign" aria-hidden="true">{}</span> <span><strong>{}.</strong> {}</span></p>`, sign(p.Level), p.title, p.summary)
	if p.Stopping {
		w.put(`<p>This replica is stopping. It answers what it has in memory; another one refreshes.</p>`)
	}
	if !p.Started {
		w.put(`<p>The start is not over: {}.</p>`, p.Missing)
	}
	w.put("\n</section>\n")
}

func (p *page) putProblems(w *pageWriter) {
	if len(p.Problems) == 0 {
		return
	}
	w.put(`<section aria-labelledby="problems">
<h2 id="problems">What to do</h2>
<ul class="problems">
`)
	for _, one := range p.Problems {
		p.putProblem(w, one)
	}
	w.put("</ul>\n</section>\n")
}

// namedAtMost is how many credentials a problem names.
const namedAtMost = 6

func (p *page) putProblem(w *pageWriter, one problemStatus) {
	level := string(one.Level)
	w.put(`<li class="{}">`+"\n", level)
	w.put(`<p class="do">{}</p>`, one.Fix)
	if one.Address != "" {
		w.put(`<p>This pod’s address, as WeChat sees it: <code class="address">{}</code></p>`, one.Address)
	}
	w.put("\n"+`<p class="what"><span class="chip {}">{}</span> {}</p>`, level, level, one.What)
	if one.RetryIn != 0 {
		w.put(`<p class="detail">Asked again in {}.</p>`, text.Span(one.RetryIn))
	}
	if n := len(one.Credentials); n > 0 {
		var names []string
		for _, c := range one.Credentials[:min(n, namedAtMost)] {
			names = append(names, p.called(c))
		}
		w.put(`<p class="detail">Concerns `)
		putCodes(w, names)
		if n > namedAtMost {
			w.put(` and {} more`, strconv.Itoa(n-namedAtMost))
		}
		w.put(`</p>`)
	}
	w.put("\n</li>\n")
}

func (p *page) putApps(w *pageWriter) {
	w.put(`<section aria-labelledby="apps">
<h2 id="apps">Apps <span class="count">{}</span></h2>
`, strconv.Itoa(len(p.rows)))
	if len(p.rows) == 0 {
		w.put(`<p class="empty">No app is configured.</p>` + "\n</section>\n")
		return
	}
	w.put(`<p class="legend" aria-hidden="true"><span><i class="key life"></i>life left, of {}</span>`, text.Span(p.scale))
	w.put(`<span><i class="key renew"></i>renewed here</span><span><i class="key margin"></i>margin: no longer in Redis</span></p>
<div class="card apps">
`)
	for _, r := range p.rows {
		p.putApp(w, r)
	}
	w.put("</div>\n</section>\n")
}

func (p *page) putApp(w *pageWriter, r row) {
	w.put(`<article class="{}">`+"\n<h3>", string(r.level))
	if r.alias != "" {
		w.put(`{} `, r.alias)
	}
	w.put(`<code>{}</code></h3>`+"\n<ul>\n", r.id)
	for _, c := range r.credentials {
		p.putCredential(w, c)
	}
	w.put("</ul>\n</article>\n")
}

func (p *page) putCredential(w *pageWriter, c cell) {
	w.put("<li>\n"+`<p class="kind"><code>{}</code></p>`+"\n", c.Kind)
	w.put(`<p class="state"><span class="chip {}">{}</span>`, string(c.level), string(c.Condition))
	if c.Backoff != 0 && c.Condition != conditionBackoff {
		w.put(` <span class="chip attention">backing off</span>`)
	}
	w.put("</p>\n")
	if c.bar != nil {
		p.putBar(w, c)
		putLeft(w, c)
	} else {
		w.put(`<p class="none">no value`)
		if again := cmp.Or(c.Backoff, c.RenewIn); again != 0 {
			w.put(`; asked again in {}`, text.Span(again))
		}
		w.put("</p>\n")
	}
	w.put("</li>\n")
}

func (p *page) putBar(w *pageWriter, c cell) {
	w.put(`<div class="bar {}" role="meter" aria-label="Life left of {}"`, string(c.level), c.Kind)
	w.put(` aria-valuemin="0" aria-valuemax="{}" aria-valuenow="{}" aria-valuetext="{}">`,
		strconv.FormatInt(p.scale, 10), strconv.FormatInt(c.ExpiresIn, 10), text.Span(c.ExpiresIn))
	w.put(`
<svg width="100%" height="10" aria-hidden="true" focusable="false">
<rect class="track" width="100%" height="10" rx="3"/><rect class="life" width="{}" height="10" rx="3"/>`, c.bar.left)
	if c.bar.margin != "" {
		w.put(`<rect class="margin" width="{}" height="10" rx="3"/>`, c.bar.margin)
	}
	if c.bar.renew != "" {
		w.put(`<line class="renew" x1="{}" x2="{}" y1="0" y2="10"/>`, c.bar.renew, c.bar.renew)
	}
	w.put("\n</svg>\n</div>\n")
}

func putLeft(w *pageWriter, c cell) {
	w.put(`<p class="left"><span><strong>{}</strong> left</span>`, text.Span(c.ExpiresIn))
	switch {
	case c.Backoff != 0:
		w.put(` <span class="next">asked again in {}</span>`, text.Span(c.Backoff))
	case c.Condition == conditionFresh:
		w.put(` <span class="next">renews in {}</span>`, text.Span(c.RenewIn))
	case c.Condition == conditionDue:
		w.put(` <span class="next">renews now</span>`)
	}
	w.put("</p>\n")
}

// putCodes writes names with commas between them.
func putCodes(w *pageWriter, names []string) {
	for i, name := range names {
		if i > 0 {
			w.put(`, `)
		}
		w.put(`<code>{}</code>`, name)
	}
}
