package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// longestPledge bounds what a leader may ask for.
const longestPledge = time.Hour

// postFailsafe answers a leader that cannot reach the store and asks for this member's word not to take its place
// (Patroni, POST /failsafe; scope, member and ttl, in seconds, are sent by Haven only).
func (s *Server) postFailsafe(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Scope  string  `json:"scope"`
		Member string  `json:"member"`
		Name   string  `json:"name"`
		TTL    float64 `json:"ttl"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Name == "" {
		text(w, http.StatusBadRequest, "the body has to be an object with the name of the leader")
		return
	}
	if s.opt.Pledge == nil {
		text(w, http.StatusBadGateway, "there is no database on this node")
		return
	}
	if me := s.opt.Source.Status(); q.Scope != "" && q.Scope != me.Scope || q.Member != "" && q.Member != me.Name {
		text(w, http.StatusInternalServerError, "this is "+me.Name+" of "+me.Scope+", and not whom the leader means")
		return
	}
	ttl := min(max(0, time.Duration(q.TTL*float64(time.Second))), longestPledge)
	lsn, err := s.opt.Pledge(q.Name, ttl)
	switch {
	case errors.Is(err, ha.ErrFailsafeOff):
		text(w, http.StatusBadGateway, err.Error())
	case errors.Is(err, ha.ErrPledgeRefused):
		text(w, http.StatusInternalServerError, "Running as a leader")
	case err != nil:
		s.log.Error("no word was given to a leader without the store", "leader", q.Name, "error", err)
		text(w, http.StatusInternalServerError, err.Error())
	default:
		if lsn > 0 {
			w.Header().Set("lsn", strconv.FormatUint(uint64(lsn), 10))
		}
		text(w, ok, "Accepted")
	}
}
