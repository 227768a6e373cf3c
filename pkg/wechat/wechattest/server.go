package wechattest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxBody bounds a request body other than an upload, in bytes.
const maxBody = 16 << 20

// A Server is the simulated WeChat: both api.weixin.qq.com and qyapi.weixin.qq.com. Which of the
// two a request means is decided by the Host if it begins with "qyapi.", by a path that only WeCom
// has, or by the token; by default it is the former, or the latter if every app is of kind [Corp].
//
// All methods are safe for concurrent use.
type Server struct {
	mu     sync.Mutex // never held while waiting, reading or writing
	knobs  Knobs
	apps   []*account        // apps[0] is "", for calls that belong to none
	tokens map[string]*token // access tokens by value
	users  map[string]bool   // user OAuth tokens
	faults []*Fault          // in the order they were added
	media  map[string]Upload // by media_id

	platforms map[string]*platform // by ID
	wake      chan struct{}        // to RunPushes; holds one signal
}

// New returns a simulator of these apps. It panics if two have the same name.
func New(apps ...App) *Server {
	s := &Server{
		knobs:  DefaultKnobs(),
		tokens: make(map[string]*token),
		users:  make(map[string]bool),
		media:  make(map[string]Upload),

		platforms: make(map[string]*platform),
		wake:      make(chan struct{}, 1),
	}
	for _, app := range append([]App{{}}, apps...) {
		if slices.ContainsFunc(s.apps, func(a *account) bool { return a.Name() == app.Name() }) {
			panic("wechattest: two apps named " + app.Name())
		}
		app.Whitelist = slices.Clone(app.Whitelist)
		s.apps = append(s.apps, newAccount(app))
		for _, t := range app.UserTokens {
			s.users[t] = true
		}
	}
	return s
}

// lookup returns the account of a name, or nil. Caller holds s.mu.
func (s *Server) lookup(name string) *account {
	for _, a := range s.apps {
		if a.Name() == name {
			return a
		}
	}
	return s.lookupPlatform(name)
}

// account is [Server.lookup] for names that must exist.
func (s *Server) account(name string) *account {
	a := s.lookup(name)
	if a == nil {
		panic("wechattest: no app named " + name)
	}
	return a
}

// call is one request on its way through the simulator.
type call struct {
	r      *http.Request
	now    time.Time
	query  url.Values
	body   []byte
	upload *Upload    // the part "media" of a multipart body
	stable stableBody // the body of a stable_token call

	platform platformBody // the body of a platform's own call
	readable bool         // valid for those: whether it is JSON

	token *token   // whose value the query has, or nil
	app   *account // never nil once resolved
	corp  bool     // meant for WeCom
	ip    string
}

// reply is what goes back: the body, then as many bytes of [MediaBody] as media says.
type reply struct {
	status int
	header http.Header
	body   []byte
	media  int64
}

// ServeHTTP answers as WeChat would. It does not serve [Server.Admin].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	knobs := s.Knobs()
	// Unknown length: the gateway refuses before anything looks at the request [U].
	if r.ContentLength < 0 && !knobs.AcceptChunked {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	c := &call{r: r, query: r.URL.Query()}
	if err := c.readBody(w); err != nil {
		panic(http.ErrAbortHandler) // the client gave up half way
	}
	latency := knobs.Latency
	if knobs.LatencyFunc != nil {
		latency = knobs.LatencyFunc(r)
	}
	if !sleep(r.Context(), latency) {
		return
	}
	if knobs.CallerIP != nil {
		c.ip = knobs.CallerIP(r)
	} else {
		c.ip = callerIP(r)
	}
	fault := s.receive(c)
	if fault == nil && knobs.FaultFunc != nil {
		fault = knobs.FaultFunc(r, c.app.Name())
	}
	if fault == nil {
		s.act(c).write(w)
		return
	}
	s.strike(fault, c, w)
}

// readBody keeps the body, or its digest if it is an upload.
func (c *call) readBody(w http.ResponseWriter) (err error) {
	if strings.HasPrefix(c.r.Header.Get("Content-Type"), "multipart/form-data") {
		c.upload, err = readUpload(c.r)
		return err
	}
	c.body, err = io.ReadAll(http.MaxBytesReader(w, c.r.Body, maxBody))
	return err
}

// receive finds out what a call is about, counts it and takes the fault that awaits it.
func (s *Server) receive(c *call) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = time.Now()
	s.resolve(c)
	c.app.count(c)
	return s.takeFault(c)
}

// act does what the call asks for.
func (s *Server) act(c *call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = time.Now()
	return s.route(c)(c)
}

// resolve sets the platform, the token and the app of a call. Caller holds s.mu.
func (s *Server) resolve(c *call) {
	if s.resolvePlatform(c) {
		return
	}
	if c.r.URL.Path == pathStable {
		_ = json.Unmarshal(c.body, &c.stable) // a body that is not JSON names no appid
	}
	c.token = s.tokens[c.query.Get("access_token")]
	switch c.r.URL.Path {
	case pathCorpToken, pathCorpJSAPI, pathCorpTicket, pathCorpSend:
		c.corp = true
	default:
		c.corp = strings.HasPrefix(c.r.Host, "qyapi.") ||
			c.token != nil && c.token.app.Kind == Corp ||
			c.token == nil && !slices.ContainsFunc(s.apps[1:], func(a *account) bool { return a.Kind != Corp }) && len(s.apps) > 1
	}
	// A token of the other platform is garbage to this one.
	if c.token != nil && c.corp != (c.token.app.Kind == Corp) {
		c.token = nil
	}
	c.app = s.apps[0]
	switch id := c.query.Get("appid"); {
	case c.token != nil:
		c.app = c.token.app
	case c.r.URL.Path == pathCorpToken:
		c.app = s.agent(c.query.Get("corpid"), c.query.Get("corpsecret"))
	case c.r.URL.Path == pathStable:
		c.app = s.byAppID(c.stable.AppID)
	case id != "" && !c.query.Has("access_token"):
		c.app = s.byAppID(id)
	}
}

// byAppID returns the WeChat account of an appid, or that of calls that belong to none.
// Caller holds s.mu.
func (s *Server) byAppID(id string) *account {
	if a := s.lookup(id); a != nil && a.Kind != Corp && a.Name() == a.ID {
		return a // no authorizer, which has no secret of its own
	}
	return s.apps[0]
}

// agent returns the app of a corp that has the secret, else any of the corp, else that of calls
// that belong to none. Caller holds s.mu.
func (s *Server) agent(corpid, corpSecret string) *account {
	found := s.apps[0]
	for _, a := range s.apps[1:] {
		if a.Kind != Corp || a.ID != corpid {
			continue
		}
		if a.Secret == corpSecret {
			return a
		}
		if found == s.apps[0] {
			found = a
		}
	}
	if a := s.templateApp(corpid, corpSecret); a != nil && (a.Secret == corpSecret || found == s.apps[0]) {
		return a
	}
	return found
}

func (rep reply) length() int64 { return int64(len(rep.body)) + rep.media }

func (rep reply) reader() io.Reader {
	return io.MultiReader(bytes.NewReader(rep.body), MediaBody(rep.media))
}

func (rep reply) writeHeader(w http.ResponseWriter) {
	maps.Copy(w.Header(), rep.header)
	w.Header().Set("Content-Length", strconv.FormatInt(rep.length(), 10))
	w.WriteHeader(rep.status)
}

// write sends a reply. If it cannot, the client has gone.
func (rep reply) write(w http.ResponseWriter) {
	rep.writeHeader(w)
	_, _ = io.Copy(w, rep.reader())
}

// sleep waits for d or for the end of ctx, and reports whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// callerIP is where a request comes from when no knob says so.
func callerIP(r *http.Request) string {
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	if first = strings.TrimSpace(first); first != "" {
		return first
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return "203.0.113.7" // in-memory connections have no address
}
