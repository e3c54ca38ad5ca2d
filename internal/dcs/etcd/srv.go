package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// SRVLookup asks the DNS for the records _service._proto.name, as (*net.Resolver).LookupSRV does.
type SRVLookup func(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)

// nodes are those of a pool, in the order in which they are tried. Where SRV records name them, the records are looked up
// before the first use, and beside later ones when that is due.
func (c *Client) nodes(ctx context.Context, p *pool) ([]*node, error) {
	nodes := p.order()
	switch {
	case c.opt.SRV == "":
		return nodes, nil
	case len(nodes) > 0:
		c.lookUpBeside()
		return nodes, nil
	}
	if err := c.lookUp(ctx); err != nil {
		return nil, err
	}
	return p.order(), nil
}

// source names what nodes could not be had from, for messages.
func (c *Client) source() string { return "SRV records of " + c.opt.SRV }

// lookUpBeside looks the records up beside the caller, where that is due. Old endpoints stay where it fails.
func (c *Client) lookUpBeside() {
	if c.ctx.Err() != nil || !c.records.due() {
		return
	}
	c.owned.Go(func() {
		ctx, cancel := c.bound(c.ctx)
		defer cancel()
		if err := c.lookUp(ctx); err != nil {
			c.opt.Log.Debug("etcd members not looked up again", "error", err)
		}
	})
}

// lookUp makes the endpoints that the records name those of both pools.
func (c *Client) lookUp(ctx context.Context) error {
	found, err := c.srvEndpoints(ctx)
	if err != nil {
		return err
	}
	c.records.due() // from now on
	c.calls.fix(found)
	c.renewals.fix(found)
	return nil
}

// srvServices are the services that are looked up, in Patroni's order: the first that has records counts.
func srvServices() []string {
	return []string{"etcd-client-ssl", "etcd-client", "etcd-ssl", "etcd", "etcd-server-ssl", "etcd-server"}
}

// srvEndpoints are the client URLs that the records name. A lookup that fails ends it, since another service's records may be
// for plain HTTP.
func (c *Client) srvEndpoints(ctx context.Context) ([]string, error) {
	var asked []string
	for _, service := range srvServices() {
		scheme := "http"
		if strings.HasSuffix(service, "-ssl") {
			scheme = "https"
		}
		if c.opt.SRVSuffix != "" {
			service += "-" + c.opt.SRVSuffix
		}
		record := "_" + service + "._tcp." + c.opt.SRV
		asked = append(asked, record)
		_, records, err := c.opt.LookupSRV(ctx, service, "tcp", c.opt.SRV)
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns) && dns.IsNotFound:
			continue
		case err != nil && len(records) == 0:
			return nil, fmt.Errorf("look up %s: %w", record, err)
		}
		found := urlsOf(scheme, records)
		if strings.HasPrefix(service, "etcd-server") {
			found = c.clientsOf(ctx, found)
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("none of %s names etcd's members: publish the first, or list the members in etcd.hosts", strings.Join(asked, ", "))
}

func urlsOf(scheme string, records []*net.SRV) []string {
	var urls []string
	for _, r := range records {
		urls = append(urls, scheme+"://"+net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	return urls
}

// clientsOf asks the peers of etcd in turn for the client URLs of all members (etcd's peer API, GET /members).
func (c *Client) clientsOf(ctx context.Context, peers []string) []string {
	for _, peer := range peers {
		urls, err := c.membersOf(ctx, peer)
		if err == nil && len(urls) > 0 {
			return urls
		}
		c.opt.Log.Debug("etcd peer does not tell its members", "peer", peer, "error", err)
	}
	return nil
}

func (c *Client) membersOf(ctx context.Context, peer string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, longestTry)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peer+"/members", nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.opt.TLS, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	var members []struct {
		ClientURLs []string `json:"clientURLs"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&members); err != nil {
		return nil, err
	}
	var urls []string
	for _, m := range members {
		urls = append(urls, m.ClientURLs...)
	}
	return urls, nil
}
