package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/config"
)

// Facts are for those who have shown the password; without one nothing that rests on secrets may be told.
func TestFactsAreGuarded(t *testing.T) {
	ask := func(n *config.RESTAPI, password, body string) (int, string) {
		t.Helper()
		b := newBench(t, leader(t), nil, func(r *config.RESTAPI) { r.Username, r.Password = n.Username, n.Password })
		b.server.opt.Facts = func(_ context.Context, body []byte, authenticated bool) (any, error) {
			if string(body) == "bad" {
				return nil, errors.New("no question")
			}
			return map[string]bool{"authenticated": authenticated}, nil
		}
		req, err := http.NewRequest("POST", "http://"+b.server.Addr().String()+"/haven/facts", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("haven", password)
		}
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text := make([]byte, 100)
		read, _ := resp.Body.Read(text)
		return resp.StatusCode, string(text[:read])
	}
	locked := &config.RESTAPI{Username: "haven", Password: "s3cret"}
	for _, c := range []struct {
		node           *config.RESTAPI
		password, body string
		code           int
		text           string
	}{
		{locked, "", "{}", 401, "no auth header received"},
		{locked, "wrong", "{}", 401, "not authenticated"},
		{locked, "s3cret", "{}", 200, `{"authenticated":true}`},
		{locked, "s3cret", "bad", 400, "no question"},
		{&config.RESTAPI{}, "", "{}", 200, `{"authenticated":false}`},
	} {
		if code, text := ask(c.node, c.password, c.body); code != c.code || text != c.text {
			t.Errorf("%+v: %d %s", c, code, text)
		}
	}
	b := newBench(t, leader(t), nil, nil)
	if code, _, _ := b.do("POST", "/haven/other", ""); code != 404 {
		t.Errorf("POST /haven/other: %d", code)
	}
	if code, _, _ := b.do("GET", "/haven/facts", ""); code != 503 {
		t.Errorf("GET /haven/facts: %d", code)
	}
}
