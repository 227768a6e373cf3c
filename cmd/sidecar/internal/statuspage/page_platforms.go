package statuspage

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/vault"
)

func (p *page) putPlatforms(w *pageWriter) {
	if len(p.Platforms) == 0 {
		return
	}
	w.put(`<section aria-labelledby="platforms">
<h2 id="platforms">Platforms <span class="count">{}</span></h2>
<div class="cards within">
`, strconv.Itoa(len(p.Platforms)))
	for _, one := range p.Platforms {
		putPlatform(w, one)
	}
	w.put("</div>\n")
	for _, one := range p.Platforms {
		p.putAccounts(w, one)
	}
	w.put("</section>\n")
}

func putPlatform(w *pageWriter, p Platform) {
	w.put(`<section class="card">` + "\n<h3>")
	if p.Alias != "" {
		w.put(`{} `, p.Alias)
	}
	w.put(`<code>{}</code></h3>`+"\n<dl>\n"+`<div><dt>Kind</dt><dd><code>{}</code></dd></div>`, p.ID, p.Kind)
	if t := p.Ticket; t != nil {
		said := "stored " + text.Ago(t.Age)
		if t.None {
			said = "none yet"
		}
		w.put("\n"+`<div><dt>Newest ticket</dt><dd><span class="chip {}">{}</span></dd></div>`, string(t.level()), said)
	}
	w.put("\n"+`<div><dt>Accounts</dt><dd>{}</dd></div>`, accountsWords(p))
	w.put("\n"+`<div><dt>Kept by this replica</dt><dd>{}`, strconv.Itoa(p.Kept))
	if p.Unserved > 0 {
		w.put(` <span class="chip attention">{} not served</span>`, strconv.Itoa(p.Unserved))
	}
	w.put(`</dd></div>`+"\n"+`<div><dt>Codes waiting</dt><dd>{}</dd></div>`, strconv.Itoa(p.CodesWaiting))
	if p.VaultError == "" {
		w.put("\n" + `<div><dt>Vault</dt><dd><span class="chip well">answers</span></dd></div>`)
	} else {
		w.put("\n"+`<div><dt>Vault</dt><dd><span class="chip attention">does not answer</span> {}</dd></div>`, p.VaultError)
	}
	w.put("\n</dl>\n</section>\n")
}

// accountsWords says how many accounts there are, by state.
func accountsWords(p Platform) string {
	if p.Accounts == nil {
		return "not counted yet"
	}
	var parts []string
	for _, state := range []vault.State{vault.StateActive, vault.StateRefused, vault.StateWithdrawn} {
		if n := p.Accounts[string(state)]; n > 0 || state == vault.StateActive {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

// putAccounts writes the worst accounts.
func (p *page) putAccounts(w *pageWriter, of Platform) {
	if len(of.Worst) == 0 {
		return
	}
	w.put(`
<table class="card accounts">
<thead><tr><th scope="col">Since</th><th scope="col">Account of {}</th><th scope="col">State</th></tr></thead>
<tbody>
`, p.called(of.ID))
	for _, a := range of.Worst {
		w.put("<tr>\n" + `<td class="when">`)
		if a.Since > 0 {
			w.put(`{}`, text.Ago(a.Since))
		}
		w.put("</td>\n"+`<td class="credential"><code>{}</code></td>`+"\n"+`<td class="result"><span class="chip {}">{}</span>`, a.Account, string(accountLevel(a)), accountWords(a))
		if a.Errcode != 0 {
			w.put(` <code>{}</code>`, strconv.Itoa(a.Errcode))
		}
		if a.RetryIn > 0 {
			w.put(` <span class="detail">asked again in {}</span>`, text.Span(a.RetryIn))
		}
		if a.Error != "" {
			w.put(`<span class="detail fix">{}</span>`, a.Error)
		}
		w.put("</td>\n</tr>\n")
	}
	w.put("</tbody>\n</table>")
	if len(of.Worst) == platform.MaxWorst {
		w.put(`<p class="detail">There may be more: GET /v1/apps/{}/authorizers lists all.</p>`, of.ID)
	}
}

func accountWords(a accountStatus) string {
	if a.State == string(vault.StateActive) {
		return "failing"
	}
	return a.State
}

func accountLevel(a accountStatus) level {
	switch a.State {
	case string(vault.StateRefused):
		return levelTrouble
	case string(vault.StateWithdrawn):
		return "plain"
	}
	return levelAttention
}
