package web

import (
	"net/http"
	"strings"
)

// failFunc answers with an error.
type failFunc func(http.ResponseWriter, *http.Request, error)

// Mux is where each face registers its paths. A call that no face knows gets a problem in the shape
// of the faces, where http.ServeMux answers in plain text. Safe for concurrent use once all paths
// are registered and Rest is set.
type Mux struct {
	paths  *http.ServeMux
	routes map[string]*route
	fail   failFunc
	Rest   http.HandlerFunc // what no face knows
}

// NewMux returns a mux without paths. hint says in a 404 what there is.
func NewMux(fail failFunc, hint string) *Mux {
	m := &Mux{paths: http.NewServeMux(), routes: map[string]*route{}, fail: fail}
	m.Rest = func(w http.ResponseWriter, r *http.Request) { fail(w, r, notFound(hint)) }
	m.paths.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { m.Rest(w, r) })
	return m
}

// AnyMethod is for a path that takes every method.
const AnyMethod = ""

// Handle registers h for a method and a path as http.ServeMux writes them. GET answers HEAD too.
func (m *Mux) Handle(method, path string, h http.HandlerFunc) {
	rt := m.routes[path]
	if rt == nil {
		rt = &route{fail: m.fail}
		m.routes[path] = rt
		m.paths.Handle(path, rt)
	}
	rt.add(method, h)
	if method == http.MethodGet {
		rt.add(http.MethodHead, h)
	}
}

func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.paths.ServeHTTP(w, r) }

// route is what a path does for each method.
type route struct {
	methods  []string
	handlers []http.HandlerFunc
	fail     failFunc
}

func (rt *route) add(method string, h http.HandlerFunc) {
	rt.methods, rt.handlers = append(rt.methods, method), append(rt.handlers, h)
}

func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for i, m := range rt.methods {
		if m == r.Method || m == AnyMethod {
			rt.handlers[i](w, r)
			return
		}
	}
	allow := strings.Join(rt.methods, ", ")
	rt.fail(w, r, &Problem{Kind: "method-not-allowed", Status: http.StatusMethodNotAllowed,
		Title: "The path does not take this method", Detail: "It takes " + allow + ".", Allow: allow})
}
