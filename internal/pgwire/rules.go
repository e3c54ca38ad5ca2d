package pgwire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Rules are the lines of an HBA file; the first that matches decides.
type Rules struct{ rules []rule }

// rule is one line.
type rule struct {
	kind      string // local, host, hostssl, hostnossl
	databases []word
	users     []word
	networks  []netip.Prefix // empty with a host kind: all
	method    Method
	verified  bool // clientcert=verify-ca: the client has to have a certificate besides
	named     bool // clientcert=verify-full: and its common name is the user's
}

// word is a word of the file. In quotes it means itself even if it is a keyword.
type word struct {
	text   string
	quoted bool
}

func (w word) keyword(k string) bool { return !w.quoted && w.text == k }

// candidate is what rules look at.
type candidate struct {
	user, database string
	replication    bool // physical
	local          bool // Unix socket
	encrypted      bool
	address        netip.Addr
	certificate    string // common name of the verified certificate
	certified      bool
}

func (c candidate) host() string {
	if c.local {
		return "[local]"
	}
	return c.address.String()
}

func (c candidate) encryption() string {
	if c.encrypted {
		return "SSL encryption"
	}
	return "no encryption"
}

// match is the method of the first rule for that client.
func (r *Rules) match(c candidate) (Method, bool) {
	for i := range r.rules {
		if one := &r.rules[i]; one.matches(c) {
			if one.verified && !c.certified || one.named && c.certificate != c.user {
				return Reject, true
			}
			return one.method, true
		}
	}
	return "", false
}

func (r *rule) matches(c candidate) bool {
	switch r.kind {
	case "local":
		if !c.local {
			return false
		}
	case "hostssl":
		if c.local || !c.encrypted {
			return false
		}
	case "hostnossl":
		if c.local || c.encrypted {
			return false
		}
	default:
		if c.local {
			return false
		}
	}
	return r.hasAddress(c.address) && r.hasDatabase(c) && r.hasUser(c)
}

func (r *rule) hasAddress(a netip.Addr) bool {
	return len(r.networks) == 0 || slices.ContainsFunc(r.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// hasDatabase: a physical replication connection has no database, and only the word replication is for it.
func (r *rule) hasDatabase(c candidate) bool {
	return slices.ContainsFunc(r.databases, func(w word) bool {
		switch {
		case w.keyword("replication"):
			return c.replication
		case c.replication:
			return false
		case w.keyword("all"):
			return true
		case w.keyword("sameuser"):
			return c.database == c.user
		}
		return w.text == c.database
	})
}

func (r *rule) hasUser(c candidate) bool {
	return slices.ContainsFunc(r.users, func(w word) bool { return w.keyword("all") || w.text == c.user })
}

// ParseRules reads a file in the format of PgBouncer's auth_hba_file, which is that of pg_hba.conf without names of
// hosts and groups. file is for error texts. All faults are reported, each with its line; with one, there are no rules.
func ParseRules(file, text string) (*Rules, error) {
	var out Rules
	var faults []error
	number := 0
	lines := strings.Split(text, "\n")
	for number < len(lines) {
		line, at := strings.TrimSuffix(lines[number], "\r"), number+1
		number++
		for strings.HasSuffix(line, `\`) {
			line = strings.TrimSuffix(line, `\`)
			if number < len(lines) {
				line += strings.TrimSuffix(lines[number], "\r")
				number++
			}
		}
		fields, err := split(line)
		if err == nil && len(fields) == 0 {
			continue
		}
		var r rule
		if err == nil {
			r, err = parseRule(fields)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, at, err))
			continue
		}
		out.rules = append(out.rules, r)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &out, nil
}

// split takes a line apart into fields, each of which is a list of words that commas separate.
func split(line string) ([][]word, error) {
	var fields [][]word
	more := false // a comma stood last: the next word belongs to the same field
	for {
		line = strings.TrimLeft(line, " \t\f\v")
		if line == "" || line[0] == '#' {
			return fields, nil
		}
		if line[0] == ',' {
			more, line = len(fields) > 0, line[1:]
			continue
		}
		w, rest, err := next(line)
		if err != nil {
			return nil, err
		}
		if more {
			fields[len(fields)-1] = append(fields[len(fields)-1], w)
		} else {
			fields = append(fields, []word{w})
		}
		more, line = false, rest
	}
}

// next takes one word, which may be quoted in part, off the front of a line.
func next(line string) (w word, rest string, err error) {
	var b strings.Builder
	inside := false
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			inside, w.quoted = !inside, true
		case !inside && strings.IndexByte(" \t\f\v,#", c) >= 0:
			w.text = b.String()
			return w, line[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if inside {
		return word{}, "", errors.New("a quote is not closed")
	}
	w.text = b.String()
	return w, "", nil
}

// parseRule reads the fields of a line.
func parseRule(fields [][]word) (rule, error) {
	kind, err := one("connection type", fields[0])
	r := rule{kind: kind}
	if err != nil {
		return r, err
	}
	least := 5
	switch r.kind {
	case "local":
		least = 4
	case "host", "hostssl", "hostnossl":
	case "hostnogssenc": // GSSAPI encryption does not exist here
		r.kind = "host"
	default:
		return r, fmt.Errorf("unknown connection type %q: use local, host, hostssl or hostnossl", r.kind)
	}
	if len(fields) < least {
		return r, fmt.Errorf("a line of type %s has at least %d fields", r.kind, least)
	}
	r.databases, r.users = fields[1], fields[2]
	rest := fields[3:]
	if err := checkNames(r.databases, r.users); err != nil {
		return r, err
	}
	if r.kind != "local" {
		if rest, err = r.parseAddress(rest); err != nil {
			return r, err
		}
	}
	err = r.parseMethod(rest)
	return r, err
}

// one is the only word of a field.
func one(what string, field []word) (string, error) {
	if len(field) > 1 {
		return "", fmt.Errorf("%s %q: only one is allowed", what, field[0].text)
	}
	return field[0].text, nil
}

// checkNames refuses what would need the server's catalog, or other files, rather than let it match nothing.
func checkNames(databases, users []word) error {
	for _, w := range databases {
		if w.keyword("samerole") || w.keyword("samegroup") {
			return fmt.Errorf("database %s is not supported: the groups of a user are not known here", w.text)
		}
	}
	for _, w := range users {
		if !w.quoted && strings.HasPrefix(w.text, "+") {
			return fmt.Errorf("user %s is not supported: the members of a group are not known here", w.text)
		}
	}
	for _, w := range slices.Concat(databases, users) {
		if !w.quoted && (strings.HasPrefix(w.text, "@") || strings.HasPrefix(w.text, "/")) {
			return fmt.Errorf("%s is not supported: write the names out", w.text)
		}
	}
	return nil
}

// parseAddress reads an address with its mask, and returns the fields behind it.
func (r *rule) parseAddress(fields [][]word) ([][]word, error) {
	text, err := one("address", fields[0])
	if err != nil {
		return nil, err
	}
	if fields[0][0].keyword("all") {
		return fields[1:], nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", text, err)
		}
		r.networks = []netip.Prefix{p.Masked()}
		return fields[1:], nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil, fmt.Errorf("address %q: names of hosts are not supported; use a network like 10.0.0.0/8, or all", text)
	}
	if len(fields) < 3 {
		return nil, fmt.Errorf("address %q needs a mask: write %s/%d", text, text, a.BitLen())
	}
	mask, err := one("mask", fields[1])
	if err != nil {
		return nil, err
	}
	bits, err := maskBits(mask, a)
	if err != nil {
		return nil, err
	}
	r.networks = []netip.Prefix{netip.PrefixFrom(a, bits).Masked()}
	return fields[2:], nil
}

// maskBits is the length of a mask that is written as an address of the same family.
func maskBits(text string, of netip.Addr) (int, error) {
	m, err := netip.ParseAddr(text)
	if err != nil || m.Is4() != of.Is4() {
		return 0, fmt.Errorf("mask %q: not one for %s", text, of)
	}
	ones, size := net.IPMask(m.AsSlice()).Size()
	if size == 0 {
		return 0, fmt.Errorf("mask %q: its ones are not together", text)
	}
	return ones, nil
}

// parseMethod reads the method and its options.
func (r *rule) parseMethod(fields [][]word) error {
	if len(fields) == 0 {
		return errors.New("the line ends before the method")
	}
	name, err := one("method", fields[0])
	if err != nil {
		return err
	}
	r.method = Method(name)
	switch r.method {
	case Trust, Reject, Password, MD5, SCRAM:
	case Cert:
		if r.kind != "hostssl" {
			return errors.New("method cert is only for lines of type hostssl")
		}
	case Peer:
		if r.kind != "local" {
			return errors.New("method peer is only for lines of type local")
		}
	default:
		return fmt.Errorf("method %q is not supported: use scram-sha-256, md5, password, cert, peer, trust or reject", name)
	}
	for _, w := range slices.Concat(fields[1:]...) {
		if err := r.option(w.text); err != nil {
			return err
		}
	}
	return nil
}

func (r *rule) option(text string) error {
	name, value, _ := strings.Cut(text, "=")
	switch {
	case name != "clientcert" || value != "verify-ca" && value != "verify-full":
		return fmt.Errorf("option %q is not supported: only clientcert=verify-ca and clientcert=verify-full are", text)
	case r.kind != "hostssl":
		return errors.New("option clientcert is only for lines of type hostssl")
	}
	r.verified, r.named = true, value == "verify-full"
	return nil
}
