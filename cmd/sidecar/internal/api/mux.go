package api

import (
	"net/http"
	"strings"
)

// failFunc answers with an error.
type failFunc func(http.ResponseWriter, *http.Request, error)

// mux is where each face registers its paths. It answers what no face knows in the faces' own shape,
// which http.ServeMux would do in plain text.
type mux struct {
	paths  *http.ServeMux
	routes map[string]*route
	fail   failFunc
	rest   http.HandlerFunc // what no face knows
}

// newMux returns a mux without paths. hint says in a 404 what there is.
func newMux(fail failFunc, hint string) *mux {
	m := &mux{paths: http.NewServeMux(), routes: map[string]*route{}, fail: fail}
	m.rest = func(w http.ResponseWriter, r *http.Request) { fail(w, r, notFound(hint)) }
	m.paths.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { m.rest(w, r) })
	return m
}

// anyMethod is for a path that takes every method.
const anyMethod = ""

// handle registers h for a method and a path as http.ServeMux writes them. GET answers HEAD too.
func (m *mux) handle(method, path string, h http.HandlerFunc) {
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

func (m *mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.paths.ServeHTTP(w, r) }

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
		if m == r.Method || m == anyMethod {
			rt.handlers[i](w, r)
			return
		}
	}
	allow := strings.Join(rt.methods, ", ")
	rt.fail(w, r, &problem{kind: "method-not-allowed", status: http.StatusMethodNotAllowed,
		title: "The path does not take this method", detail: "It takes " + allow + ".", allow: allow})
}
