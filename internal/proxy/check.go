package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/havenha/haven/internal/proxy/addresses"
)

// A check is begun every checkEvery, each with checkTimeout, so that a lost packet costs little. Both grow as long as nobody
// answers, since a network may be slow: a check gets the time that has passed, up to checkLongest. After checkHurry one is
// begun every checkSlowly, since whoever takes so long does not end sooner by being asked.
const (
	checkEvery   = 100 * time.Millisecond
	checkTimeout = 300 * time.Millisecond
	checkLongest = 3 * time.Second
	checkHurry   = 20 * time.Second
	checkSlowly  = 500 * time.Millisecond
)

// candidate is a leader who is to be asked whether it is writable.
type candidate struct {
	leadership
	api       string
	addresses string // joined, so that candidates can be compared
	ports     []netip.AddrPort
}

func (c candidate) same(d candidate) bool {
	return c.leadership == d.leadership && c.api == d.api && c.addresses == d.addresses
}

// answer is what came of a check: nil when the candidate is writable.
type answer struct {
	of    leadership
	check int // number of the check
	err   error
}

type checker struct {
	client *http.Client
	scope  string
}

// until asks the candidate again and again, until it is writable or ctx ends. Each outcome goes to tell.
func (c *checker) until(ctx context.Context, who candidate, delay time.Duration, tell func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	began := time.Now()
	next := time.NewTimer(delay)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		passed := time.Since(began)
		limit := min(max(checkTimeout, passed), checkLongest)
		tries.Go(func() {
			err := c.once(ctx, who, limit)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				cancel()
			}
			tell(err)
		})
		if passed < checkHurry {
			next.Reset(max(checkEvery, limit/10))
		} else {
			next.Reset(checkSlowly)
		}
	}
}

// once asks the member's REST API and the server's port, at the same time.
func (c *checker) once(ctx context.Context, who candidate, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- probe(ctx, who.ports) }()
	err := c.primary(ctx, who)
	return errors.Join(err, <-answered)
}

// primary asks GET /primary (Patroni, REST API): 200 says that the member holds the leader key and its server is no
// standby.
func (c *checker) primary(ctx context.Context, who candidate) error {
	if who.api == "" {
		return errors.New("its member key names no REST API")
	}
	code, doc, err := c.get(ctx, who.api+"/primary")
	if err != nil {
		return fmt.Errorf("its REST API does not answer: %w", err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("its REST API answers %d to /primary", code)
	}
	if who := doc.Patroni; c.scope != "" && who.Scope != "" && who.Scope != c.scope {
		return fmt.Errorf("its REST API belongs to another cluster, %q", who.Scope)
	}
	if name := doc.Patroni.Name; name != "" && name != who.holder {
		return fmt.Errorf("its REST API belongs to another member, %q", name)
	}
	return nil
}

// document is what is read of a member's status document.
type document struct {
	Patroni struct {
		Scope string `json:"scope"`
		Name  string `json:"name"`
	} `json:"patroni"`
}

func (c *checker) get(ctx context.Context, url string) (int, document, error) {
	var doc document
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, doc, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, doc, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return 0, doc, err
	}
	// The code is the answer; a body that is no document only names nobody.
	_ = json.Unmarshal(body, &doc)
	return resp.StatusCode, doc, nil
}

// maxDocument bounds what is read of an answer.
const maxDocument = 1 << 20

// sslRequest asks whether a server speaks TLS: length 8, code 80877103 (PostgreSQL manual, message formats). It is
// answered before anything is asked of the database, by one byte, and leaves no line in the server's log.
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// probe tells whether a PostgreSQL server answers on one of the addresses.
func probe(ctx context.Context, at []netip.AddrPort) error {
	conn, err := addresses.Dial(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, sslRequest); err != nil {
		return fmt.Errorf("its server does not answer: %w", err)
	}
	var reply [1]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return fmt.Errorf("its server does not answer: %w", err)
	}
	if reply[0] != 'S' && reply[0] != 'N' {
		return fmt.Errorf("%s is no PostgreSQL server: it answers %q to an SSLRequest", conn.RemoteAddr(), reply[0])
	}
	return nil
}
