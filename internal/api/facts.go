package api

import (
	"errors"
	"io"
	"net/http"
)

// postHaven answers POST /haven/facts, which is guarded as a request that changes something is, though it changes nothing,
// and POST /haven/upgrade.
func (s *Server) postHaven(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/haven/facts" && s.opt.Facts != nil:
		s.postFacts(w, r)
	case r.URL.Path == "/haven/upgrade" && s.opt.Upgrade != nil:
		s.postUpgrade(w, r)
	default:
		errorPage(w, http.StatusNotFound, "")
	}
}

func (s *Server) postUpgrade(w http.ResponseWriter, r *http.Request) {
	if err := s.opt.Upgrade(r.Context()); err != nil {
		text(w, http.StatusConflict, err.Error())
		return
	}
	text(w, http.StatusAccepted, "goes on as the program that is installed now")
}

func (s *Server) postFacts(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		errorPage(w, http.StatusBadRequest, "")
		return
	}
	n := s.current().node
	certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && (n.VerifyClient == "optional" || n.VerifyClient == "required")
	facts, err := s.opt.Facts(r.Context(), body, n.Username != "" || certified)
	switch {
	case errors.Is(err, r.Context().Err()) && err != nil:
		w.WriteHeader(no)
	case err != nil:
		text(w, http.StatusBadRequest, err.Error())
	default:
		document(w, ok, facts)
	}
}
