package statuspage

import (
	"strconv"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
)

func (p *page) putRedis(w *pageWriter) {
	r := p.Redis
	if r == nil {
		return
	}
	w.put(`<section class="card" aria-labelledby="redis">
<h2 id="redis">Redis</h2>
<dl>
`)
	if r.Reachable {
		w.put(`<div><dt>Now</dt><dd><span class="chip well">answers</span> {}</dd></div>`, text.Took(r.TookMS))
	} else {
		w.put(`<div><dt>Now</dt><dd><span class="chip trouble">away</span></dd></div>`)
	}
	if r.Error != "" {
		w.put(`<div><dt>Error</dt><dd>{}</dd></div>`, r.Error)
	}
	w.put("\n<div><dt>Credentials read</dt><dd>{}</dd></div>", text.Ago(r.Confirmed))
	switch {
	case r.Reachable && r.Listening:
		w.put(`<div><dt>Events</dt><dd><span class="chip well">arrive</span></dd></div>`)
	case r.Reachable:
		w.put(`<div><dt>Events</dt><dd><span class="chip attention">do not arrive</span> Everything is read again every 10 to 15 s instead.</dd></div>`)
	}
	if r.Listeners != nil {
		w.put(`<div><dt>Listeners</dt><dd>{}</dd></div>`, strconv.Itoa(*r.Listeners))
	}
	w.put("\n</dl>\n</section>\n")
}

func (p *page) putReplicas(w *pageWriter) {
	if len(p.Replicas) == 0 {
		return
	}
	w.put(`<section class="card" aria-labelledby="replicas">
<h2 id="replicas">Replicas in the journal</h2>
<dl>`)
	for _, r := range p.Replicas {
		w.put(`<div><dt><code>{}</code>`, r.Name)
		if r.This {
			w.put(` <span class="chip plain">this one</span>`)
		}
		w.put(`</dt><dd>{}</dd></div>`, text.Ago(r.Age))
	}
	w.put("\n</dl>\n</section>\n")
}

func (p *page) putConfiguration(w *pageWriter) {
	w.put(`<section class="card" aria-labelledby="configuration">
<h2 id="configuration">Configuration</h2>
<dl>
`)
	if p.Configuration.Reload != nil {
		putReload(w, p.Configuration.Reload)
	} else {
		w.put(`<div><dt>Read</dt><dd>at the start</dd></div>`)
	}
	for _, warning := range p.Configuration.Warnings {
		w.put(`<div><dt>Warning</dt><dd>{}</dd></div>`, warning)
	}
	w.put("\n<div><dt>Version</dt><dd><code>{}</code></dd></div>\n</dl>\n</section>\n", p.Version)
}

func putReload(w *pageWriter, r *reloadStatus) {
	w.put(`<div><dt>Read again</dt><dd>{} `, text.Ago(r.Age))
	if r.OK {
		w.put(`<span class="chip well">in force</span></dd></div>`)
	} else {
		w.put(`<span class="chip attention">not valid</span> The old one stays.</dd></div>`)
	}
	if r.Error != "" {
		w.put(`<div><dt>Error</dt><dd class="text">{}</dd></div>`, r.Error)
	}
	if len(r.NeedsRestart) > 0 {
		w.put(`<div><dt>Needs a restart</dt><dd>`)
		putCodes(w, r.NeedsRestart)
		w.put(`</dd></div>`)
	}
}

func (p *page) putJournal(w *pageWriter) {
	if p.Journal == nil {
		return
	}
	w.put(`<section aria-labelledby="journal">
<h2 id="journal">Last refreshes, of all replicas</h2>`)
	if p.Journal.Error != "" {
		w.put(`<p class="empty">{}</p>`, p.Journal.Error)
	}
	if p.Journal.Apps > 0 {
		w.put(`<p class="empty">Of {} apps of {}: those with something wrong, and those with the newest values.</p>`,
			strconv.Itoa(p.Journal.Apps), strconv.Itoa(len(p.Apps)))
	}
	switch {
	case len(p.Journal.Entries) > 0:
		p.putEntries(w, ended(p.Journal.Entries))
	case p.Journal.Error == "":
		w.put(`<p class="empty">Nothing has happened yet.</p>`)
	}
	w.put("\n</section>\n")
}

func (p *page) putEntries(w *pageWriter, entries []entryStatus) {
	w.put(`
<table class="card">
<thead><tr><th scope="col">When</th><th scope="col">Credential</th><th scope="col">Why</th><th scope="col">Result</th>` +
		`<th scope="col" class="number">Took</th><th scope="col">By</th></tr></thead>
<tbody>
`)
	for _, e := range entries {
		w.put("<tr>\n"+`<td class="when">{}</td>`+"\n", text.Ago(e.Age))
		w.put(`<td class="credential"><code>{}</code> <code>{}</code></td>`+"\n", p.called(e.App), e.Kind)
		w.put(`<td class="why">{}</td>`+"\n", reasonWords(e.Reason))
		p.putResult(w, e)
		w.put(`<td class="number">{}</td>`+"\n", text.Took(e.TookMS))
		w.put(`<td class="by"><code>{}</code></td>`+"\n</tr>\n", e.By)
	}
	w.put("</tbody>\n</table>")
}

func (p *page) putResult(w *pageWriter, e entryStatus) {
	w.put(`<td class="result"><span class="chip {}">{}</span>`, string(resultLevel(e.Result)), resultWords(e.Result, e.Why))
	if e.Errcode != 0 {
		w.put(` <code>{}</code>`, strconv.Itoa(e.Errcode))
	}
	if e.Backoff != 0 {
		w.put(` <span class="detail">wait {}</span>`, text.Span(e.Backoff))
	}
	if advice := p.advice[e.Errcode]; advice != "" {
		w.put(`<span class="detail fix">{}</span>`, advice)
	}
	w.put("</td>\n")
}
