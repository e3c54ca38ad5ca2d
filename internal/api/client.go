package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/config"
)

// dialTimeout bounds a connection attempt of the client.
const dialTimeout = 2 * time.Second

// Client asks REST APIs on behalf of a person.
type Client struct {
	http               *http.Client
	username, password string
}

// NewClient makes a client with the login and certificates of ctl, and what is missing there from restapi (Patroni).
// A certificate is checked against the authority, or the system's; not at all where ctl says insecure. rest may be nil.
func NewClient(ctl config.CTL, rest *config.RESTAPI) (*Client, error) {
	c := &Client{username: ctl.Username, password: ctl.Password}
	ca := ctl.CACert
	if rest != nil {
		if c.username == "" {
			c.username, c.password = rest.Username, rest.Password
		}
		if ca == "" {
			ca = rest.CAFile
		}
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: ctl.Insecure}
	var err error
	if ca != "" {
		if t.RootCAs, err = authorities(ca); err != nil {
			return nil, fmt.Errorf("rest api client: %w", err)
		}
	}
	if ctl.CertFile != "" {
		pair, err := Certificate(ctl.CertFile, ctl.KeyFile, ctl.KeyPassword)
		if err != nil {
			return nil, fmt.Errorf("rest api client: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: t, DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		},
		// An answer that points elsewhere would take the password there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Answer is what a REST API answered.
type Answer struct {
	Code int
	Body []byte
}

// Text is the body as one line for people; of an error page, the message in it.
func (a Answer) Text() string {
	s := string(a.Body)
	if _, rest, found := strings.Cut(s, "<p>Message: "); found {
		s, _, _ = strings.Cut(rest, "</p>")
	}
	return strings.TrimSpace(s)
}

// Do sends a request to base (scheme://host:port, a login in it is used) and a path, which may have a query. Body is sent as JSON unless nil.
// An error means that there was no answer; every answer, of whatever code, is none.
func (c *Client) Do(ctx context.Context, method, base, path string, body any) (Answer, error) {
	return c.DoIf(ctx, method, base, path, body, 0)
}

// DoIf is Do for something of that revision, and no other: the header If-Match says so. 0: whatever its revision is.
func (c *Client) DoIf(ctx context.Context, method, base, path string, body any, revision int64) (Answer, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return Answer{}, fmt.Errorf("%s is not the address of a REST API: write http://host:8008", withoutLogin(base))
	}
	user := u.User
	u.User = nil
	u.Path, u.RawQuery, _ = strings.Cut(path, "?")
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w", method, u, err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", method, u, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if revision != 0 {
		req.Header.Set("If-Match", fmt.Sprintf("%q", strconv.FormatInt(revision, 10)))
	}
	c.login(req, user)
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err // it names method and URL
	}
	defer func() { _ = resp.Body.Close() }()
	a := Answer{Code: resp.StatusCode}
	if a.Body, err = io.ReadAll(http.MaxBytesReader(nil, resp.Body, 4*maxBody)); err != nil {
		return a, fmt.Errorf("%s %s: read the answer: %w", method, u, err)
	}
	return a, nil
}

// withoutLogin is an address of a REST API for people's eyes.
func withoutLogin(base string) string {
	at := strings.LastIndexByte(base, '@')
	if at < 0 {
		return base
	}
	if scheme, _, found := strings.Cut(base[:at], "://"); found {
		return scheme + "://" + base[at+1:]
	}
	return base[at+1:]
}

func (c *Client) login(req *http.Request, user *url.Userinfo) {
	switch {
	case user != nil:
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	case c.username != "":
		req.SetBasicAuth(c.username, c.password)
	}
}

// Status reads GET /haven/status of the node at base.
func (c *Client) Status(ctx context.Context, base string) (Status, error) {
	var s Status
	a, err := c.Do(ctx, http.MethodGet, base, "/haven/status", nil)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(a.Body, &s); err != nil || s.Scope == "" {
		return s, fmt.Errorf("%s answers, but not as Haven does: is it a REST API of Haven? (code %d)", withoutLogin(base), a.Code)
	}
	return s, nil
}
