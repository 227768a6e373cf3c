package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultstore"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// platforms looks at each third-party platform: its keys, the vault, and what WeChat says to it.
func (e *examination) platforms(ctx context.Context) {
	if len(e.cfg.Platforms) == 0 {
		return
	}
	store := e.openVault()
	if store != nil {
		defer func() { _ = store.Close() }() // nothing is waiting for it
	}
	for _, c := range e.cfg.Platforms {
		kind, err := platform.New(platform.Options{ID: c.ID, Kind: platform.Kind(c.Kind)})
		if err != nil {
			e.fail("config", err.Error(), "") // the configuration was checked
			continue
		}
		p := &patientPlatform{
			examination: e, c: c, check: "platform " + cmp.Or(c.Alias, c.ID),
			client: &wechat.Client{BaseURL: c.APIBase}, tokenKey: kind.TokenKey(), ticketLife: kind.Status().TicketLife,
		}
		if c.HasAccounts() {
			p.pushes(ctx, store)
		}
		if !e.answersAt(ctx, c.APIBase, c.Kind != config.KindOpenPlatform) {
			e.skipped(p.check+" token", "not looked at: "+c.APIBase+" does not answer as WeChat does")
			continue
		}
		p.startPush(ctx)
		if token := p.token(ctx); c.HasAccounts() {
			p.accounts(ctx, token)
		}
	}
}

// openVault returns where the vault is, for the caller to close; nil if it cannot be asked, or if no
// platform needs it.
func (e *examination) openVault() vaultstore.Store {
	const check = "vault"
	if !e.needsVault() {
		return nil
	}
	if e.cfg.Vault.URL.Empty() && e.rdb == nil {
		e.skipped(check, "not looked at: it is in Redis, which cannot be asked")
		return nil
	}
	store, err := vaultstore.Open(e.cfg, e.rdb)
	if err != nil {
		e.fail(check, err.Error(), "correct vault.url_file, or use a program that has the driver")
		return nil
	}
	return store
}

// patientPlatform is one platform as it is examined.
type patientPlatform struct {
	*examination
	c          config.ThirdParty
	check      string
	client     *wechat.Client
	tokenKey   tokencache.Key
	ticketLife time.Duration
	kept       *vault.Vault // nil: it cannot be asked
	newest     vault.Record // the ticket; its Rev is 0 if there is none
}

// pushes looks at what pushes need: the keys, the vault with the ticket, and the callback's address.
func (p *patientPlatform) pushes(ctx context.Context, store vaultstore.Store) {
	p.keys()
	if store != nil && p.durable(ctx, store) {
		p.kept = vault.New(store, p.cfg.Vault.Keys)
		p.ticket(ctx)
	}
	if p.opts.Callback != "" {
		p.callback(ctx, strings.ReplaceAll(p.opts.Callback, "{platform}", p.c.ID))
	}
}

// keys tries whether a push that is sealed with each key of the file is opened.
func (p *patientPlatform) keys() {
	check := p.check + " keys"
	token, err1 := os.ReadFile(p.c.TokenFile)
	file, err2 := os.ReadFile(p.c.AESKeyFile)
	if err := errors.Join(err1, err2); err != nil {
		p.fail(check, "a file has just gone", "let token_file and aes_key_file stay")
		return
	}
	callbackToken := secret.New(strings.TrimSpace(string(token)))
	p.secrets = append(p.secrets, callbackToken)
	lines := 0
	for line := range strings.Lines(string(file)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		lines++
		p.secrets = append(p.secrets, secret.New(line))
		sealer, err := wechat.NewEnvelope(callbackToken, p.c.ID, secret.New(line))
		if err == nil {
			query, body := p.push(sealer)
			_, err = p.c.Envelope.Open(query, body)
		}
		if err != nil {
			p.fail(check, fmt.Sprintf("line %d of aes_key_file opens nothing: %v", lines, err), "copy the EncodingAESKey from the console again: 43 letters and digits")
			return
		}
	}
	text := "the EncodingAESKey opens what is sealed with it"
	if lines > 1 {
		text = fmt.Sprintf("each of the %d EncodingAESKeys opens what is sealed with it", lines)
	}
	p.ok(check, text)
}

// durable looks whether the vault opens with these keys and keeps what it has. It reports whether
// it can be read.
func (p *patientPlatform) durable(ctx context.Context, store vaultstore.Store) bool {
	check := p.check + " vault"
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	kept := vault.New(store, p.cfg.Vault.Keys)
	for _, id := range []string{vault.Ticket, vault.Marker} {
		switch _, err := kept.Load(ctx, p.c.ID, id); {
		case errors.Is(err, vault.ErrSealed):
			p.fail(check, err.Error(), "put the key back into vault.key_file: it is needed until sidecar vault rekey has sealed everything again")
			return false
		case err != nil:
			p.fail(check, err.Error(), "let the sidecar's user reach it; the rights are in docs/platforms.md")
			return false
		}
	}
	problem, sure, err := store.Durability(ctx, p.c.ID)
	switch {
	case err != nil:
		p.fail(check, err.Error(), "")
	case problem == "":
		p.ok(check, "it opens with vault.key_file, and keeps what is written")
	case !sure:
		p.skipped(check, problem)
	case p.c.Kind != config.KindOpenPlatform && !p.cfg.Vault.Volatile:
		p.fail(check, problem, "do that: WeCom gives a permanent code only once, so the sidecar does not start; vault.volatile: true accepts the loss")
	default:
		p.warn(check, problem, "do that: until WeChat's list has filled the vault again, accounts are not served")
	}
	return err == nil
}

const mendCallback = "see whether WeChat reaches the callback and is answered success: --callback tries the address"

// ticket looks how old the newest ticket is.
func (p *patientPlatform) ticket(ctx context.Context) {
	if p.ticketLife == 0 {
		return
	}
	check := p.check + " ticket"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := p.kept.Load(ctx, p.c.ID, vault.Ticket)
	p.newest = r
	late := 30 * time.Minute
	if p.ticketLife <= time.Hour {
		late = 15 * time.Minute
	}
	age := r.Age.Round(time.Second)
	p.secrets = append(p.secrets, r.Secret)
	switch {
	case err != nil:
		p.fail(check, err.Error(), "")
	case r.Rev == 0:
		p.warn(check, "there is none yet: the platform's token cannot be fetched", "wait 10 minutes after the first sidecar has started; then "+mendCallback)
	case r.Age > p.ticketLife:
		p.fail(check, fmt.Sprintf("the newest one was stored %v ago, and can be used for %v: WeChat's pushes do not arrive", age, p.ticketLife), mendCallback)
	case r.Age > late:
		p.warn(check, fmt.Sprintf("the newest one was stored %v ago, and one comes every 10 minutes: WeChat's pushes do not arrive", age), mendCallback)
	default:
		p.ok(check, fmt.Sprintf("the newest one was stored %v ago", age))
	}
}

// startPush asks WeChat to push tickets again, if that is permitted.
func (p *patientPlatform) startPush(ctx context.Context) {
	if !p.opts.StartPush || !p.c.HasAccounts() {
		return
	}
	check := p.check + " start push"
	if p.c.Kind != config.KindOpenPlatform {
		p.skipped(check, "WeCom has no such call: push a ticket by hand in the provider's console")
		return
	}
	if err := p.client.StartPush(ctx, p.c.ID, p.c.Secret); err != nil {
		p.refused(check, err)
		return
	}
	p.ok(check, "WeChat accepts id, secret and address, and pushes tickets")
}

// token returns the platform's own token: the one in Redis, or else a new one, if that is permitted.
func (p *patientPlatform) token(ctx context.Context) secret.String {
	check := p.check + " token"
	value, err := p.inRedis(ctx, p.tokenKey)
	switch {
	case err == nil:
		p.secrets = append(p.secrets, value)
		if p.c.Kind != config.KindOpenPlatform {
			p.ok(check, "Redis has one; WeCom has no call that would try it out without a change")
		}
		return value
	case !errors.Is(err, redis.Nil):
		p.skipped(check, "it is unknown whether Redis has one, and fetching one from WeChat would replace it")
	case !p.opts.Fetch:
		p.skipped(check, "Redis has none, and fetching one from WeChat replaces any in use elsewhere: if there is none, use --fetch")
	case p.ticketLife > 0 && p.newest.Rev == 0:
		p.skipped(check, "without a ticket, none can be fetched")
	default:
		return p.fetchToken(ctx, check)
	}
	return secret.String{}
}

func (p *patientPlatform) fetchToken(ctx context.Context, check string) secret.String {
	var cred wechat.Credential
	var err error
	accepted := "WeCom accepts id, secret, ticket and address"
	switch p.c.Kind {
	case config.KindOpenPlatform:
		cred, err = p.client.ComponentToken(ctx, p.c.ID, p.c.Secret, p.newest.Secret)
	case config.KindProvider:
		accepted = "WeCom accepts id, secret and address"
		cred, err = p.client.ProviderToken(ctx, p.c.ID, p.c.Secret)
	default:
		cred, err = p.client.SuiteToken(ctx, p.c.ID, p.c.Secret, p.newest.Secret)
	}
	if err != nil {
		p.refused(check, err)
		return secret.String{}
	}
	p.secrets = append(p.secrets, cred.Value)
	if p.c.Kind != config.KindOpenPlatform {
		p.ok(check, accepted)
	}
	return cred.Value
}

// inRedis returns a value that a sidecar has stored; redis.Nil if there is none.
func (p *patientPlatform) inRedis(ctx context.Context, k tokencache.Key) (secret.String, error) {
	if p.rdb == nil {
		return secret.String{}, errors.New("no Redis to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	value, err := p.rdb.Get(ctx, p.cfg.Namespace+":{"+k.App+"}:"+k.Kind).Result()
	return secret.New(value), err
}

const (
	// recordsPerPage is how many records of the vault are read at once.
	recordsPerPage = 500
	// mostTried is how many accounts are looked up in Redis, to find one that has a token.
	mostTried = 50
)

// accounts compares the vault with WeChat's list, and tries one account's token.
func (p *patientPlatform) accounts(ctx context.Context, token secret.String) {
	check := p.check + " accounts"
	by, tried := map[vault.State]int{}, ""
	var used secret.String
	looked := 0
	for after := ""; p.kept != nil; {
		page, err := p.kept.List(ctx, p.c.ID, after, recordsPerPage)
		if err != nil {
			p.fail(check, err.Error(), "")
			return
		}
		for _, r := range page {
			by[r.State]++
			if after = r.ID; r.State != vault.StateActive || tried != "" || looked == mostTried {
				continue
			}
			looked++
			if value, err := p.inRedis(ctx, tokencache.Key{App: apps.AccountName(p.c.ID, r.ID), Kind: source.AccessToken}); err == nil {
				tried, used = r.ID, value
			}
		}
		if len(page) < recordsPerPage {
			break
		}
	}
	here := by[vault.StateActive] + by[vault.StateRefused]
	if p.kept != nil {
		text := fmt.Sprintf("the vault has %d active, %d refused and %d withdrawn", by[vault.StateActive], by[vault.StateRefused], by[vault.StateWithdrawn])
		if p.c.Kind != config.KindOpenPlatform || token.Empty() {
			p.ok(check, text)
		} else {
			p.listed(ctx, check, token, here, text)
		}
	}
	p.tryAccount(ctx, tried, used)
}

// listed compares how many accounts WeChat lists with how many there are here. That tries the
// platform's token, too.
func (p *patientPlatform) listed(ctx context.Context, check string, token secret.String, here int, text string) {
	total, _, err := p.client.AuthorizerList(ctx, token, p.c.ID, 0, 1)
	w, ok := errors.AsType[*wechat.Error](err)
	switch {
	case ok && w.Class() == wechat.ClassBadToken:
		p.fail(p.check+" token", "WeChat rejects the token in Redis: "+says(w), "find the program that fetches tokens of this platform and stop it: a second environment with the same platform, say")
		return
	case err != nil:
		p.refused(p.check+" token", err)
		return
	}
	p.ok(p.check+" token", "WeChat accepts it, and this host's address")
	if total == here {
		p.ok(check, text+"; WeChat lists as many")
		return
	}
	p.warn(check, fmt.Sprintf("%s; WeChat lists %d", text, total),
		"a few: nothing, the sidecars compare the two once a day, and those whose code was never exchanged have no secret to be recovered; many: look into the log of the sidecars for lost exchanges and failed comparisons")
}

// tryAccount tries the token of an account that is in use.
func (p *patientPlatform) tryAccount(ctx context.Context, account string, token secret.String) {
	check := p.check + " account"
	if account == "" {
		p.skipped(check, "Redis has no token of an account: one is fetched when an app asks for it")
		return
	}
	p.secrets = append(p.secrets, token)
	probe := wechat.ProbeCallbackIP
	if p.c.Kind != config.KindOpenPlatform {
		probe = wechat.ProbeCorpCallbackIP
	}
	if err := p.client.Probe(ctx, token, probe); err != nil {
		p.refused(check, err)
		return
	}
	p.ok(check, "WeChat accepts the token of "+account)
}

// push makes a push of an unknown kind, as WeChat would send it.
func (p *patientPlatform) push(sealer *wechat.Envelope) (url.Values, []byte) {
	sender, receiver, order := "AppId", "AppId", "CreateTime"
	if p.c.Kind != config.KindOpenPlatform {
		sender, receiver, order = "ToUserName", "SuiteId", "TimeStamp"
	}
	now := fmt.Sprint(time.Now().Unix())
	message := fmt.Appendf(nil, "<xml><%s>%s</%s><%s>%s</%s><InfoType>%s</InfoType></xml>", receiver, p.c.ID, receiver, order, now, order, doctorsPush)
	query, encrypted := sealed(sealer, message, now)
	return query, fmt.Appendf(nil, "<xml><%s>%s</%s><Encrypt>%s</Encrypt></xml>", sender, p.c.ID, sender, encrypted)
}
