package statuspage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// problemStatus is something that a person may have to act on, in plain words.
type problemStatus struct {
	Level   level  `json:"level"`
	What    string `json:"what"`
	Fix     string `json:"fix"`
	Errcode int    `json:"errcode,omitempty"`
	// Address is this pod's egress address as WeChat saw it, where that is what it refuses.
	Address string `json:"address,omitempty"`
	RetryIn int64  `json:"retry_in,omitempty"`
	// Credentials are those concerned, as app/kind. Empty: all, or none.
	Credentials []string `json:"credentials,omitempty"`
}

// problems are those found so far. What many credentials have for the same reason is one problem.
type problems struct{ all []problemStatus }

func (p *problems) add(one problemStatus) {
	for i, known := range p.all {
		// Of the rest the text may differ: WeChat puts an id of the call into it.
		if known.Level == one.Level && known.Errcode == one.Errcode && known.Fix == one.Fix && (one.Errcode != 0 || known.What == one.What) {
			p.all[i].Credentials = append(known.Credentials, one.Credentials...)
			if known.RetryIn == 0 || one.RetryIn > 0 && one.RetryIn < known.RetryIn {
				p.all[i].RetryIn = one.RetryIn
			}
			p.all[i].Address = cmp.Or(known.Address, one.Address)
			return
		}
	}
	p.all = append(p.all, one)
}

// sorted returns the worst first.
func (p *problems) sorted() []problemStatus {
	slices.SortStableFunc(p.all, func(a, b problemStatus) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	return append([]problemStatus{}, p.all...)
}

func (p *problems) worst() level {
	worst := levelWell
	for _, one := range p.all {
		if one.Level.rank() < worst.rank() {
			worst = one.Level
		}
	}
	return worst
}

// credential adds what is wrong with a credential.
func (p *problems) credential(app *App, c tokencache.Status) {
	one := problemStatus{Level: levelOf(c), Credentials: []string{c.Key.String()}, RetryIn: seconds(c.Backoff)}
	if c.Err != nil && !c.Fresh {
		one.RetryIn = max(one.RetryIn, seconds(c.RenewIn))
	}
	switch {
	case one.Level == levelWell:
	case c.Err != nil:
		one.explain(app.platform, c.Key.Kind, c.Err)
	case !c.Known:
		one.What, one.Fix = "It has not been looked for yet.", "Wait a moment: the sidecar is starting, or was just given this app."
	case c.Rejected:
		one.What, one.Fix = app.platform.String()+" rejects the value, and there is no other yet.", "Wait a moment: the report that found it out has started a refresh."
	case c.InDoubt:
		one.What, one.Fix = "The value is in doubt: a refresh was begun, and its result is not known yet.", "Wait a moment: it is refreshed again by itself."
	default:
		one.What, one.Fix = "The value lives, but has not been confirmed for a while. Apps get it as stale.", "Find out why Redis does not answer this pod."
	}
	if one.Level != levelWell {
		p.add(one)
	}
	if c.ForeignRefresher {
		p.add(problemStatus{
			Level: levelAttention, Credentials: one.Credentials,
			What: "Values are rejected soon after they were fetched: probably another program refreshes this app.",
			Fix:  "Find the program that fetches tokens with this app's secret, and stop it; or use stable_token, whose tokens other programs cannot invalidate.",
		})
	}
}

// levelOf says how much of a problem a credential is.
func levelOf(c tokencache.Status) level {
	f, _ := errors.AsType[*tokencache.FetchError](c.Err)
	switch {
	case !c.Known && c.Err != nil, c.Known && c.Rejected:
		return levelTrouble
	case !c.Known:
		return levelAttention // the first look is on its way
	case !c.Fresh || c.InDoubt || c.Backoff > 0:
		return levelAttention
	case c.Err != nil && (c.RenewIn <= 0 || f != nil && f.Class == tokencache.ClassLocal):
		return levelAttention // what refuses this pod does so although another one refreshes
	}
	return levelWell
}

// explain says in words why a refresh failed, and what to do.
func (p *problemStatus) explain(platform apps.Platform, kind string, err error) {
	f, ok := errors.AsType[*tokencache.FetchError](err)
	switch {
	case ok && f.Code != 0:
		advice := advice(platform, kind, f.Code)
		p.Errcode = f.Code
		p.What = fmt.Sprintf("%s answers %d: %s", platform, f.Code, strings.TrimSuffix(f.Message, ": "+advice))
		p.Fix = advice
		p.Address = (&wechat.Error{Code: f.Code, Message: f.Message}).EgressIP()
	case ok:
		p.What = fmt.Sprintf("%s gives no token: %s", platform, f.Message)
	case errors.Is(err, tokencache.ErrLimited):
		p.What = "The day's allowance of calls is spent."
		p.Fix = "Find out in the journal why there were so many; fetches_per_day and reports_per_day are the limits."
	default:
		if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
			p.What, p.Fix = text.Redis(s), "See Redis, below."
		} else if errors.Is(err, context.DeadlineExceeded) {
			p.What = "The refresh did not end in time."
		} else if errors.Is(err, tokencache.ErrClosed) {
			p.What, p.Fix = "The sidecar is stopping.", "Nothing: another replica refreshes."
		} else {
			p.What = err.Error()
		}
	}
	if p.Fix == "" {
		p.Fix = "Nothing yet: it is tried again by itself. If it stays for minutes, look whether " + platform.String() + " can be reached from this pod."
	}
}

// advice says what to do about an errcode, "" if nothing is to be done. A ticket fails with the
// codes of its own call or with those of its token's.
func advice(platform apps.Platform, kind string, code int) string {
	token, call := wechat.APIToken, wechat.APICall
	if platform == apps.WeCom {
		token, call = wechat.APICorpToken, wechat.APICorpCall
	}
	if kind != kindToken {
		if a := (&wechat.Error{API: call, Code: code}).Advice(); a != "" {
			return a
		}
	}
	return (&wechat.Error{API: token, Code: code}).Advice()
}

const kindToken = "access_token"

func (p *problems) redis(r *redisStatus) {
	switch {
	case !r.Reachable:
		p.add(problemStatus{Level: levelAttention, What: r.Error,
			Fix: "Bring Redis back. Until then tokens are served from memory, to their end; after 4 minutes they are marked stale."})
	case r.Error == "" && r.Deaf != "":
		p.add(problemStatus{Level: levelAttention, What: "The events of the other replicas do not arrive. " + r.Deaf,
			Fix: "Let the ACL, and any proxy before Redis, permit SUBSCRIBE and the channel. Until then everything is read again every 10 to 15 s."})
	case r.Error != "":
		p.add(problemStatus{Level: levelAttention, What: r.Error, Fix: "Check REDIS_URL, the ACL of its user, and what else uses this namespace."})
	}
}

func (p *problems) configuration(c configurationStatus) {
	if c.Reload == nil || c.Reload.OK {
		return
	}
	p.add(problemStatus{Level: levelAttention, What: "The new configuration is not valid, so the old one stays: " + c.Reload.Error,
		Fix: "Correct it. It is read again by itself."})
}
