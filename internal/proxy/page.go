package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/proxy/listen"
)

//go:embed page.html
var pages embed.FS

// page is the statistics port: / is a page for people, /json and /metrics are for programs.
type page struct {
	snapshot func() Stats
	log      *slog.Logger
	looks    *template.Template
	sockets  []net.Listener
	server   *http.Server
	serving  sync.WaitGroup

	mu     sync.Mutex
	config config.Stats
}

// openPage binds the statistics port, if there is to be one.
func (p *Proxy) openPage(c *config.Stats) error {
	if c == nil {
		return nil
	}
	sockets, err := listen.Open(c.Listen, listen.Unix{})
	if err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	looks, err := template.New("page.html").Funcs(template.FuncMap{"size": bytesText, "ago": ago, "good": good}).ParseFS(pages, "page.html")
	if err != nil {
		listen.Close(sockets)
		return fmt.Errorf("statistics page: %w", err)
	}
	g := &page{snapshot: p.Snapshot, log: p.opt.Log, looks: looks, sockets: sockets, config: *c}
	g.server = &http.Server{
		Handler: g.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(p.opt.Log.Handler(), slog.LevelDebug),
	}
	p.page = g
	return nil
}

func (g *page) start() {
	for _, s := range g.sockets {
		g.serving.Go(func() {
			if err := g.server.Serve(s); err != http.ErrServerClosed {
				g.log.Error("the statistics port has ended", "error", err)
			}
		})
	}
}

func (g *page) close() {
	g.server.Close()
	listen.Close(g.sockets)
	g.serving.Wait()
}

func (g *page) handler() http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collector{g.snapshot})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", g.serveHTML)
	mux.HandleFunc("GET /json", g.serveJSON)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return g.guard(mux)
}

// guard lets in only whom the settings allow.
func (g *page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		c := g.config
		g.mu.Unlock()
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !allowed(c.Allow, from.Addr()) {
			http.Error(w, "403: proxy.stats.allow does not name your network", http.StatusForbidden)
			return
		}
		if c.Username != "" && !authentic(r, c) {
			w.Header().Set("WWW-Authenticate", `Basic realm="haven proxy", charset="UTF-8"`)
			http.Error(w, "401: name and password of proxy.stats.authentication are needed", http.StatusUnauthorized)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// allowed tells whether one of the networks holds the address; an empty list lets nobody in.
func allowed(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// authentic compares digests, so that the time taken tells neither content nor length.
func authentic(r *http.Request, c config.Stats) bool {
	name, password, _ := r.BasicAuth()
	return same(name, c.Username)&same(password, c.Password) == 1
}

func same(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

func (g *page) serveHTML(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := g.looks.Execute(&b, g.snapshot()); err != nil {
		g.log.Error("the statistics page could not be made", "error", err)
		http.Error(w, "500: the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // a reader who left needs no answer
}

func (g *page) serveJSON(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(g.snapshot()) // a reader who left needs no answer
}

// ago is the time from then to now, for people.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return "–"
	case d < 10*time.Second:
		return max(d, 0).Round(100 * time.Millisecond).String()
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// good sorts states into those that give sessions, those that are as they should be, and the others.
func good(s State) string {
	switch s {
	case Admitted, Ready:
		return "good"
	case Standby, Leading, Excluded:
		return "calm"
	}
	return "bad"
}

// configure changes who may read, from the next request on.
func (g *page) configure(c config.Stats) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config = c
}

func (g *page) listensOn() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.config.Listen
}
