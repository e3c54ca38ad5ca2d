package api

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/havenha/haven/internal/config"
)

// admitted holds a request that changes something against allowlist, client certificate and password, in this order
// (Patroni); where it refuses, it has answered.
func (s *Server) admitted(w http.ResponseWriter, r *http.Request) bool {
	n := s.current().node
	if !s.allowed(n, r) {
		text(w, http.StatusForbidden, "Access is denied")
		return false
	}
	if r.TLS != nil && (n.VerifyClient == "optional" || n.VerifyClient == "required") && len(r.TLS.PeerCertificates) == 0 {
		text(w, http.StatusForbidden, "client certificate required")
		return false
	}
	if n.Username == "" {
		return true
	}
	user, password, given := r.BasicAuth()
	sameUser := subtle.ConstantTimeCompare([]byte(user), []byte(n.Username))
	samePassword := subtle.ConstantTimeCompare([]byte(password), []byte(n.Password))
	if given && sameUser&samePassword == 1 {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Patroni"`)
	if r.Header.Get("Authorization") == "" {
		text(w, http.StatusUnauthorized, "no auth header received")
	} else {
		text(w, http.StatusUnauthorized, "not authenticated")
	}
	return false
}

// allowed tells whether the peer is on the list; without any list, everybody is. For POST /failsafe the members' addresses alone make no
// list: a leader asks it when nothing else works, and not always from the address that it publishes (Patroni).
func (s *Server) allowed(n *config.RESTAPI, r *http.Request) bool {
	members := n.AllowListIncludeMembers && (component(r) != "failsafe" || len(n.AllowList) > 0)
	if len(n.AllowList) == 0 && !members {
		return true
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	peer = peer.Unmap().WithZone("")
	entries := n.AllowList
	if members {
		for _, m := range s.opt.Source.Status().Snapshot.Members {
			if u, err := url.Parse(m.APIURL); err == nil && u.Hostname() != "" {
				entries = append(entries[:len(entries):len(entries)], u.Hostname())
			}
		}
	}
	for _, e := range entries {
		if matches(r, e, peer) {
			return true
		}
	}
	return false
}

// matches tells whether an address, network or host name of the list means the peer.
func matches(r *http.Request, entry string, peer netip.Addr) bool {
	if a, err := netip.ParseAddr(entry); err == nil {
		return a.Unmap() == peer
	}
	if p, err := netip.ParsePrefix(entry); err == nil {
		return p.Contains(peer)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(r.Context(), "ip", entry)
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if a.Unmap() == peer {
			return true
		}
	}
	return false
}
