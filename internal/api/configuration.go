package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
)

func (s *Server) getConfig(w http.ResponseWriter, r *http.Request) {
	snap, read := s.lately(w, r)
	switch {
	case !read:
	case snap.Config == nil:
		errorPage(w, http.StatusBadGateway, "")
	default:
		document(w, ok, snap.Config.Raw)
	}
}

// object reads a JSON object from a request; where there is none it has answered.
func object(w http.ResponseWriter, r *http.Request) (map[string]any, bool) {
	if r.ContentLength < 0 || r.Header.Get("Content-Length") == "" {
		errorPage(w, http.StatusLengthRequired, "")
		return nil, false
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		errorPage(w, http.StatusBadRequest, "")
		return nil, false
	}
	out, err := decode(content)
	if err != nil || len(out) == 0 {
		errorPage(w, http.StatusBadRequest, "")
		return nil, false
	}
	return out, true
}

// decode reads an object and leaves its numbers as they are written.
func decode(content []byte) (map[string]any, error) {
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	return out, nil
}

func (s *Server) patchConfig(w http.ResponseWriter, r *http.Request) {
	patch, read := object(w, r)
	if !read {
		return
	}
	snap, read := s.now(w, r)
	if !read {
		return
	}
	if snap.Config == nil {
		errorPage(w, http.StatusServiceUnavailable, "")
		return
	}
	whole, err := decode(snap.Config.Raw)
	if err != nil {
		errorPage(w, http.StatusServiceUnavailable, "")
		return
	}
	if !Merge(whole, patch) {
		document(w, ok, whole)
		return
	}
	if accepted(w, whole, snap.Config.Raw) && s.storeConfig(w, r, whole, snap.Config.ModRev, http.StatusServiceUnavailable) {
		document(w, ok, whole)
	}
}

// putConfig replaces the whole configuration, whatever it is at the moment; with a header If-Match only the one of that
// revision (RFC 9110; Patroni knows no such header).
func (s *Server) putConfig(w http.ResponseWriter, r *http.Request) {
	whole, read := object(w, r)
	if !read {
		return
	}
	seen := int64(-1)
	if tag := r.Header.Get("If-Match"); tag != "" {
		var err error
		if seen, err = strconv.ParseInt(strings.Trim(tag, `"`), 10, 64); err != nil || seen <= 0 {
			errorPage(w, http.StatusBadRequest, "If-Match is not a revision")
			return
		}
	}
	if accepted(w, whole, nil) && s.storeConfig(w, r, whole, seen, http.StatusBadGateway) {
		document(w, ok, whole)
	}
}

// accepted checks a configuration that is to be stored. Where a person has made a mistake, it has answered with all of
// them. Mistakes that the stored configuration has already do not stop another change, such as pause.
func accepted(w http.ResponseWriter, whole map[string]any, stored json.RawMessage) bool {
	raw, err := json.Marshal(whole)
	if err != nil {
		errorPage(w, http.StatusBadRequest, err.Error())
		return false
	}
	mistakes := Mistakes(raw, stored)
	if len(mistakes) == 0 {
		return true
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // it repeats what was sent
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, "the configuration was not changed:\n%s\n", strings.Join(mistakes, "\n")) // a client that is gone cannot be told
	return false
}

// Mistakes are what is wrong with a configuration that is to be stored, without what was wrong already with the one that
// stands there (nil: whatever that is).
func Mistakes(next, stored json.RawMessage) []string {
	former := config.CheckDynamic(stored).Faults
	var mistakes []string
	for _, f := range config.CheckDynamic(next).Faults {
		if f.Severity == config.Error && !slices.Contains(former, f) {
			mistakes = append(mistakes, f.Text)
		}
	}
	return mistakes
}

func (s *Server) storeConfig(w http.ResponseWriter, r *http.Request, whole map[string]any, seen int64, failed int) bool {
	raw, err := json.Marshal(whole)
	if err == nil {
		err = s.opt.Store.PutConfig(r.Context(), raw, seen)
	}
	switch {
	case errors.Is(err, dcs.ErrConflict):
		errorPage(w, http.StatusConflict, "")
	case err != nil:
		s.log.Warn("the dynamic configuration was not written", "error", err)
		errorPage(w, failed, "")
	default:
		s.opt.Wake()
	}
	return err == nil
}

// Merge lays a patch over a configuration: null deletes, objects merge, everything else replaces. It tells whether
// anything changed; scalars that are the same as text count as unchanged.
func Merge(whole, patch map[string]any) bool {
	changed := false
	for name, value := range patch {
		have, there := whole[name]
		inner, isObject := value.(map[string]any)
		haveInner, haveObject := have.(map[string]any)
		switch {
		case value == nil && there:
			delete(whole, name)
			changed = true
		case value == nil:
		case isObject && haveObject:
			changed = Merge(haveInner, inner) || changed
		case !there || plain(have) != plain(value):
			whole[name] = value
			changed = true
		}
	}
	return changed
}

func plain(v any) string {
	switch v.(type) {
	case map[string]any, []any:
		text, err := json.Marshal(v)
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v)
}

func (s *Server) postReload(w http.ResponseWriter, _ *http.Request) {
	s.owned.Add(1) // the caller counts as well, so the counter is above zero
	go func() {
		defer s.owned.Done()
		if err := s.opt.Reload(); err != nil {
			s.log.Error("reload failed", "error", err)
		}
	}()
	text(w, http.StatusAccepted, "reload scheduled")
}

// postCitus has no effect on a member that is no coordinator of Citus, which here none is (Patroni).
func (s *Server) postCitus(w http.ResponseWriter, r *http.Request) {
	if _, read := object(w, r); read {
		text(w, ok, "OK")
	}
}

// postSigterm has no effect where processes can be sent signals (Patroni).
func (s *Server) postSigterm(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusAccepted, "shutdown scheduled")
}
