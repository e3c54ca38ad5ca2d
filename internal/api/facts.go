package api

import (
	"errors"
	"io"
	"net/http"
)

// postHaven answers POST /haven/facts. It is guarded as a request that changes something is, though it changes nothing.
func (s *Server) postHaven(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/haven/facts" || s.opt.Facts == nil {
		errorPage(w, http.StatusNotFound, "")
		return
	}
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
