package api

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"
)

// handler answers one request.
type handler func(w http.ResponseWriter, r *http.Request)

// serve finds the handler by method and first component of the path; what has none of its own is a health check.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		w.WriteHeader(no)
		return
	}
	defer s.owned.Done()
	s.headers(w, r)
	if r.TLS == nil && s.current().tls != nil { // a connection from before TLS was switched on
		w.Header().Set("Connection", "close")
		text(w, http.StatusForbidden, "TLS is required")
		return
	}
	boundBody(w, r, bodyTimeout)
	switch r.Method {
	case http.MethodHead, http.MethodOptions:
		ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
		defer cancel()
		w.WriteHeader(s.health(s.opt.Source.Fresh(ctx), r))
		return
	case http.MethodGet:
		if h, ok := s.gets()[component(r)]; ok {
			h(w, r)
		} else {
			s.getHealth(w, r)
		}
		return
	}
	h, ok := s.actions()[r.Method+" "+component(r)]
	if !ok {
		errorPage(w, http.StatusNotImplemented, fmt.Sprintf("Unsupported method (%q)", r.Method))
		return
	}
	if s.admitted(w, r) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h(w, r)
	}
}

func (s *Server) gets() map[string]handler {
	return map[string]handler{
		"liveness": s.getLiveness, "readiness": s.getReadiness, "patroni": s.getPatroni, "cluster": s.getCluster,
		"history": s.getHistory, "config": s.getConfig, "metrics": s.getMetrics, "failsafe": s.getFailsafe,
		"haven": s.getHaven,
	}
}

func (s *Server) actions() map[string]handler {
	return map[string]handler{
		"PATCH config": s.patchConfig, "PUT config": s.putConfig, "POST reload": s.postReload,
		"POST switchover": s.postSwitchover, "DELETE switchover": s.deleteSwitchover, "POST failover": s.postFailover,
		"POST sigterm": s.postSigterm, "POST haven": s.postHaven, "POST failsafe": s.postFailsafe, "POST restart": s.postRestart, "DELETE restart": s.deleteRestart,
		"POST reinitialize": s.postReinitialize, "POST citus": s.postCitus, "POST mpp": s.postCitus,
	}
}

func component(r *http.Request) string {
	first, _, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/")
	return first
}

// headers sets what every answer bears.
func (s *Server) headers(w http.ResponseWriter, r *http.Request) {
	n := s.current().node
	h := w.Header()
	switch n.ServerTokens {
	case "productonly":
		h.Set("Server", "Patroni")
	case "minimal":
		h.Set("Server", "Patroni/"+s.patroniVersion())
	default:
		h.Set("Server", "Haven/"+s.opt.Version)
	}
	for k, v := range n.HTTPExtraHeaders {
		h.Set(k, v)
	}
	if r.TLS != nil {
		for k, v := range n.HTTPSExtraHeaders {
			h.Set(k, v)
		}
	}
}

// patroniVersion is the version of Patroni whose interface is spoken, as the member key says it.
func (s *Server) patroniVersion() string {
	if v := s.opt.Source.Status().Member.Version; v != "" {
		return v
	}
	return s.opt.Version
}

// text writes a plain answer; its type is what Patroni sends.
func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body)) // a client that is gone cannot be told
}

func document(w http.ResponseWriter, code int, body any) {
	content, err := json.Marshal(body)
	if err != nil {
		errorPage(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(content) // as above
}

// errorPage answers as HTTP frameworks do: with a page for people.
func errorPage(w http.ResponseWriter, code int, message string) {
	if message == "" {
		message = http.StatusText(code)
	}
	w.Header().Set("Content-Type", "text/html;charset=utf-8")
	w.Header().Set("Connection", "close")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `<!DOCTYPE HTML>
<html lang="en">
    <head><meta charset="utf-8"><title>Error response</title></head>
    <body>
        <h1>Error response</h1>
        <p>Error code: %d</p>
        <p>Message: %s.</p>
    </body>
</html>
`, code, html.EscapeString(message)) // as above
}

// boundBody bounds how long a body may take to arrive. What is done with it may take longer.
func boundBody(w http.ResponseWriter, r *http.Request, limit time.Duration) {
	if r.ContentLength == 0 {
		return
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(limit)) // an HTTP/1 connection has deadlines
	r.Body = &boundedBody{r.Body, c}
}

type boundedBody struct {
	io.ReadCloser
	c *http.ResponseController
}

// Read lifts the bound at the end: net/http goes on reading, to see the client leave.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.c.SetReadDeadline(time.Time{})
	}
	return n, err
}
