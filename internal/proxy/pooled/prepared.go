package pooled

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"unique"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// statement is a prepared statement of one client.
type statement struct {
	name    string // at servers
	client  string // the client's name for it
	body    source // of its Parse message, behind the name
	unnamed bool
	twice   bool   // stands for a Parse under a name that is taken
	rows    bool   // it is known to return rows
	clean   bool   // it is known to leave nothing behind its transaction
	made    bool   // the client was told that it is there
	of      params // the settings by which it has its name
	batch   uint64 // in which it was given its name
}

// source is what a Parse message says. Many clients prepare the same, which is in memory once.
type source = unique.Handle[string]

// replies, as the length that is wanted, says that the messages before have to be answered first.
const replies = -1

// prepared is what one client has prepared.
type prepared struct {
	named map[string]*statement
	bytes int // what they take
	// closed are names, and the batch in which each was closed last. Whether that is done, nobody knows before its end.
	closed map[string]uint64
	// meaning is what the client's settings make of a text, as it was for of last.
	meaning string
	of      params
	// bound is the unnamed portal; those that have a name are in portals.
	bound   portal
	portals map[string]portal

	unnamed
	parcel struct { // that was entered last
		before   unnamed // as it was at its beginning
		replaced bool    // body is no longer that of before
		spare    []byte  // for a body
	}
}

// unnamed is the unnamed statement: its number, which no other client's has, 0 for none, and the body of its Parse message.
type unnamed struct {
	number  uint64
	body    []byte
	lost    bool // the body was too long to be kept
	current *statement
}

// portal is a portal's statement, as Binds up to that batch say.
type portal struct {
	statement *statement
	batch     uint64
}

// maxPortals bounds the named portals that are remembered, and maxPortalName what a server looks at of a name (PostgreSQL: NAMEDATALEN).
const (
	maxPortals    = 100
	maxPortalName = 63
)

func cutName(name []byte) string { return string(name[:min(len(name), maxPortalName)]) }

// bind notes whose a portal is; nil: it is not known.
func (pr *prepared) bind(name []byte, st *statement, batch uint64) {
	switch {
	case len(name) == 0:
		pr.bound = portal{st, batch}
	case st == nil:
		delete(pr.portals, cutName(name))
	default:
		if pr.portals == nil {
			pr.portals = map[string]portal{}
		}
		if len(pr.portals) >= maxPortals {
			clear(pr.portals)
		}
		pr.portals[cutName(name)] = portal{st, batch}
	}
}

// unbind is for a Bind that failed, or was skipped.
func (pr *prepared) unbind() {
	pr.bound = portal{}
	clear(pr.portals)
}

// behind is the statement of a portal; nil: it is not certain, for the Bind may be skipped. The server is locked.
func (pr *prepared) behind(name []byte, s *server) *statement {
	of := pr.bound
	if len(name) > 0 {
		of = pr.portals[cutName(name)]
	}
	if of.batch != s.statements.batch && s.x.Ends() {
		return nil
	}
	return of.statement
}

// portalOf is the name of the portal that a Bind, or a Describe of a portal, is about, by what nameIn found before the name.
func portalOf(kind byte, before []byte) []byte {
	if kind == 'D' {
		before = before[1:]
	}
	return before[:max(0, len(before)-1)]
}

// begin comes before the messages that are sent at once are entered.
func (pr *prepared) begin() {
	last := &pr.parcel
	if last.replaced && cap(last.before.body) <= smallBuffer {
		last.spare = last.before.body
	}
	last.before, last.replaced = pr.unnamed, false
}

// undo makes the unnamed statement what it was at begin.
func (pr *prepared) undo() { pr.unnamed, pr.parcel.replaced = pr.parcel.before, false }

// replace keeps the body of another unnamed statement, and that of before as well.
func (pr *prepared) replace(body []byte) {
	if last := &pr.parcel; !last.replaced {
		pr.body, last.spare, last.replaced = last.spare, nil, true
	}
	pr.body = append(pr.body[:0], body...)
}

// another makes the unnamed statement another one. The one before is used again, unless the server may still have something to do with it, or a
// named portal is its; that the unnamed portal is, is not known any more.
func (pr *prepared) another(s *server) {
	if pr.current == nil || s.x.Owes() || slices.Contains(s.suspended, pr.current) || pr.held(pr.current) {
		pr.current = &statement{unnamed: true}
		return
	}
	if pr.bound.statement == pr.current {
		pr.bound = portal{}
	}
	*pr.current = statement{unnamed: true}
}

// held tells whether a named portal is that statement's.
func (pr *prepared) held(st *statement) bool {
	for _, of := range pr.portals {
		if of.statement == st {
			return true
		}
	}
	return false
}

// forget drops the named statements, but those that the client was not told of yet: they come behind the command that dropped them.
func (pr *prepared) forget() {
	for name, st := range pr.named {
		if st.made {
			pr.drop(name)
		}
	}
}

// maxNamed bounds what the named statements of one client take.
const maxNamed = 16 << 20

// cost is what a statement takes, about.
func (st *statement) cost() int { return len(st.body.Value()) + len(st.client) + 256 }

func (pr *prepared) add(st *statement) {
	if pr.named == nil {
		pr.named = map[string]*statement{}
	}
	pr.named[st.client] = st
	pr.bytes += st.cost()
}

func (pr *prepared) drop(name string) {
	if st := pr.named[name]; st != nil {
		delete(pr.named, name)
		pr.bytes -= st.cost()
	}
}

// statements are those that a server has.
type statements struct {
	has     map[string]*copyOf
	unnamed uint64 // the number of the client's statement that is the unnamed one; 0: there is none
	since   uint64 // the batch in which unnamed was sent
	batch   uint64
	clock   uint64
	rest    uint64 // the batch from which on something was owed: a setting that the server reports may have changed before what it parsed
}

// unknown is the number of an unnamed statement that is not any client's.
const unknown = ^uint64(0)

type copyOf struct {
	batch     uint64 // in which it was sent
	confirmed bool
	doubtful  bool // it may be gone, or of no use: it is not used, but closed when there are too many
	used      uint64
}

// reported notes that a setting has changed. By what settings the statements were parsed that were sent meanwhile is not known.
func (t *statements) reported() {
	for name, c := range t.has {
		if c.batch >= t.rest {
			t.distrust(name)
		}
	}
}

// distrust notes that nobody knows whether a statement is at the server in good order.
func (t *statements) distrust(name string) {
	if c := t.has[name]; c != nil {
		*c = copyOf{confirmed: true, doubtful: true}
	}
}

func (t *statements) clear() {
	clear(t.has)
	t.unnamed = unknown
}

// forget is for a command that has dropped the named statements. Those that are not confirmed come behind it.
func (t *statements) forget() {
	for name, c := range t.has {
		if c.confirmed {
			delete(t.has, name)
		}
	}
}

// leave notes that what is being sent leaves that as the unnamed statement.
func (t *statements) leave(number uint64) { t.unnamed, t.since = number, t.batch }

func (t *statements) confirm(st *statement) {
	if c := t.has[st.name]; c != nil {
		c.confirmed = true
	}
}

// parcel is what is to be sent: a run of the client's bytes as they are, or with some of them replaced.
type parcel struct {
	b    []byte
	from int // what stands before is in out
	out  []byte
}

// upTo moves the client's bytes before i to out, and leaves out n bytes of what follows.
func (p *parcel) upTo(i, n int) {
	p.out = append(p.out, p.b[p.from:i]...)
	p.from = i + n
}

// close returns all up to the end.
func (p *parcel) close(end int) []byte {
	if p.out == nil {
		return p.b[:end]
	}
	if p.from < end {
		p.out = append(p.out, p.b[p.from:end]...)
	}
	return p.out
}

func (p *parcel) release(b *buffers) {
	if p.out != nil {
		b.put(p.out[:0])
	}
}

// open makes sure that there is an out.
func (p *parcel) open(b *buffers) {
	if p.out == nil {
		p.out = b.get(largeBuffer)[:0]
	}
}

// enter notes that the message at i is being sent. want is the length that it has to be there with; 0: it was entered. The
// server is locked.
func (c *client) enter(s *server, p *parcel, i int, kind byte, size int) (want int, err error) {
	m := p.b[i:]
	switch kind {
	case 'Q', 'F':
		if kind == 'Q' && !s.x.Skipping() { // a function call leaves the unnamed statement
			c.prepared.number = 0
			s.statements.leave(0)
		}
		s.x.Query(kind)
		s.statements.batch++
	case 'S':
		s.x.Sync()
		s.statements.batch++
	case 'c', 'f':
		s.x.CopyEnd()
	case 'H':
		s.x.Flush()
	case 'd':
	case 'E':
		if size > len(m) {
			return size, nil
		}
		name, _, _ := frame.Text(m[frame.Head:])
		s.x.Extended(entry{Kind: 'E', Note: c.prepared.behind(name, s)})
	default:
		return c.named(s, p, i, kind, size)
	}
	return 0, nil
}

// tracks tells whether prepared statements are followed from server to server. The unnamed one always is, but in a session.
func (d *Door) tracks(l *lane) bool { return d.opt.Mode != Session && l.tracks }

// named enters a message that has the name of a prepared statement.
func (c *client) named(s *server, p *parcel, i int, kind byte, size int) (want int, err error) {
	m := p.b[i:min(len(p.b), i+size)]
	whole := len(m) == size
	if !whole && (kind != 'B' && kind != 'P') {
		return size, nil
	}
	before, name, ok := nameIn(kind, m[frame.Head:])
	if !ok {
		if whole || len(m) >= maxKept {
			return 0, frame.ErrMessage
		}
		return min(size, 2*len(m)+frame.Head), nil
	}
	if !c.door.tracks(c.lane) && (len(name) > 0 || c.door.opt.Mode == Session) {
		switch {
		case kind == 'P' && len(name) > 0:
			s.dirty = true
		case kind == 'B':
			c.prepared.bind(portalOf(kind, before), nil, 0)
		}
		s.x.Extended(entry{Kind: kind})
		return 0, nil
	}
	if kind == 'P' && !whole && size <= maxKept {
		return size, nil
	}
	if s.x.Skipping() {
		s.x.Extended(entry{Kind: kind})
		return 0, nil
	}
	switch kind {
	case 'P':
		// The batch that is to make the statement may fail, and any may drop it: only then is the name taken. One that closes it may fail, too.
		if st := c.prepared.named[string(name)]; pending(s) && (st != nil || c.prepared.doubts(nil, name, s)) {
			return replies, nil
		}
		if len(name) > 0 && whole && c.prepared.bytes+size > maxNamed {
			return 0, &pgwire.Error{Code: "53200", Message: "too many prepared statements", Hint: "Close those that are not needed any more."}
		}
		c.parse(s, p, i, m, size, name, whole)
	case 'C':
		if len(c.prepared.closed) >= maxClosed && pending(s) {
			return replies, nil
		}
		if len(name) > 0 {
			c.prepared.close(string(name), s)
		}
		c.close(s, p, i, size, before, name)
	default:
		if len(name) > 0 && pending(s) && c.prepared.doubts(c.prepared.named[string(name)], name, s) {
			return replies, nil
		}
		c.use(s, p, i, kind, size, before, name)
	}
	return 0, nil
}

// maxClosed bounds the names that are remembered as closed.
const maxClosed = 1000

// pending tells whether a batch before this one is not answered yet, and will be.
func pending(s *server) bool { return s.x.Ends() && !s.x.Copying() }

// doubts tells whether it depends on a batch before that a name is this statement's, or, with nil, that it is none's.
func (pr *prepared) doubts(st *statement, name []byte, s *server) bool {
	if st != nil {
		return !st.made && st.batch != s.statements.batch
	}
	in, ok := pr.closed[string(name)]
	return ok && in != s.statements.batch
}

// close notes that a name is being closed.
func (pr *prepared) close(name string, s *server) {
	if !s.x.Ends() {
		clear(pr.closed) // all of that is settled
	}
	if pr.closed == nil {
		pr.closed = map[string]uint64{}
	}
	pr.closed[name] = s.statements.batch
}

// nameIn finds the name of a statement in a body, and what stands before it. Describe and Close of a portal have none:
// then ok with a nil name.
func nameIn(kind byte, body []byte) (before, name []byte, ok bool) {
	at := 0
	switch kind {
	case 'B':
		portal, _, ok := frame.Text(body)
		if !ok {
			return nil, nil, false
		}
		at = len(portal) + 1
	case 'D', 'C':
		if len(body) < 2 {
			return nil, nil, false
		}
		if body[0] != 'S' {
			return body, nil, true
		}
		at = 1
	}
	name, _, ok = frame.Text(body[at:])
	return body[:at], name, ok
}

// harmless is sent as the text of a statement whose name is taken: should the name turn out to be free, nothing else is executed.
const harmless = "SELECT\x00\x00\x00"

// parse enters a Parse.
func (c *client) parse(s *server, p *parcel, i int, m []byte, size int, name []byte, whole bool) {
	pr := &c.prepared
	body := m[frame.Head+len(name)+1:]
	switch old := pr.named[string(name)]; {
	case len(name) == 0:
		pr.number = c.door.unnamed.Add(1)
		pr.lost = !whole
		if whole {
			pr.replace(body)
		}
		s.statements.leave(pr.number)
		pr.another(s)
		s.x.Extended(entry{Kind: 'P', Note: pr.current})
	case old != nil: // the server shall say that the name is taken
		replaced := size
		if !whole {
			replaced = frame.Head + len(name)
		}
		p.open(&c.door.buffers)
		p.upTo(i, replaced)
		old = c.ensure(s, p, old)
		if whole {
			p.out = frame.Append(p.out, 'P', old.name, "\x00", harmless)
		} else { // should the name turn out to be free after all, the connection is given up
			p.out = frame.AppendRenamed(p.out, 'P', size, nil, len(name), old.name)
		}
		s.x.Extended(entry{Kind: 'P', Note: &statement{name: old.name, client: old.client, twice: true}})
	case !whole: // too long to be kept: it stays at this server, which is reset afterwards
		s.dirty = true
		s.x.Extended(entry{Kind: 'P'})
	default:
		of := unique.Make(string(body))
		st := &statement{name: c.nameOf(of), client: string(name), body: of, of: c.params, batch: s.statements.batch}
		pr.add(st)
		p.open(&c.door.buffers)
		p.upTo(i, size)
		if !s.x.Unreported() && s.statements.there(st) { // it may be DISCARD ALL, or SET
			// To close what does not exist is no error: so the reply comes in its turn, or not at all after an error.
			p.out = frame.Append(p.out, 'C', "S", c.door.prefix, "\x00")
			s.x.Extended(entry{Kind: 'C', As: '1', Note: st})
			return
		}
		c.put(s, p, st, false)
	}
}

// nameOf is the name at servers of a statement of that text, with the settings that the client has: PostgreSQL makes constants of the text
// when it parses it, by TimeZone, DateStyle and others, and keeps them.
func (c *client) nameOf(body source) string {
	if pr := &c.prepared; pr.of != c.params {
		pr.of, pr.meaning = c.params, c.door.tracked.meaning(c.params)
	}
	sum := sha256.Sum256([]byte(c.prepared.meaning + between + body.Value()))
	return c.door.prefix + hex.EncodeToString(sum[:12])
}

// there tells whether a statement is at the server, or on its way in this batch.
func (t *statements) there(st *statement) bool {
	has := t.has[st.name]
	if has == nil || has.doubtful || !has.confirmed && has.batch != t.batch {
		return false
	}
	t.clock++
	has.used = t.clock
	return true
}

// ensure prepares a statement at the server, if it is not there. The client hears nothing of it, unless it fails. The result takes its
// place: what is parsed now has a name by the settings of now.
func (c *client) ensure(s *server, p *parcel, st *statement) *statement {
	if st.of != c.params && st.made {
		st = c.renamed(st)
	}
	if !s.statements.there(st) {
		c.put(s, p, st, true)
		if st.of != c.params { // its own Parse is on its way; when that has been answered it is renamed
			s.statements.distrust(st.name)
		}
	}
	return st
}

// renamed is a statement with the name of now.
func (c *client) renamed(st *statement) *statement {
	name := c.nameOf(st.body)
	if name == st.name {
		st.of = c.params
		return st
	}
	next := *st
	next.name, next.of = name, c.params
	c.prepared.drop(st.client)
	c.prepared.add(&next)
	return &next
}

// put appends a Parse, and before it a Close, so that it does not matter whether the server still has it.
func (c *client) put(s *server, p *parcel, st *statement, swallow bool) {
	t := &s.statements
	if t.has == nil {
		t.has = map[string]*copyOf{}
	}
	for len(t.has) >= c.lane.set.Load().MaxPreparedStatements && t.evict(s, p) {
	}
	p.out = frame.Append(p.out, 'C', "S", st.name, "\x00")
	s.x.Extended(entry{Kind: 'C', Swallow: true})
	p.out = frame.Append(p.out, 'P', st.name, "\x00", st.body.Value())
	s.x.Extended(entry{Kind: 'P', Swallow: swallow, Note: st})
	t.clock++
	t.has[st.name] = &copyOf{batch: t.batch, used: t.clock}
}

// evict closes the statement that was not used for longest, unless that may be needed by what is on its way.
func (t *statements) evict(s *server, p *parcel) bool {
	oldest := ""
	for name, c := range t.has {
		if c.confirmed && (oldest == "" || c.used < t.has[oldest].used) {
			oldest = name
		}
	}
	if oldest == "" {
		return false
	}
	delete(t.has, oldest)
	p.out = frame.Append(p.out, 'C', "S", oldest, "\x00")
	s.x.Extended(entry{Kind: 'C', Swallow: true, Note: &statement{name: oldest}})
	return true
}

// use enters a Bind or Describe.
func (c *client) use(s *server, p *parcel, i int, kind byte, size int, before, name []byte) {
	pr := &c.prepared
	var bound *statement
	switch st := pr.named[string(name)]; {
	case name == nil: // of a portal
		e := entry{Kind: kind}
		if kind == 'D' {
			e.Note = pr.behind(portalOf(kind, before), s)
		}
		s.x.Extended(e)
		return
	case len(name) == 0:
		c.ensureUnnamed(s, p, i)
		s.x.Extended(entry{Kind: kind, Note: pr.current})
		bound = pr.current
	case st != nil:
		p.open(&c.door.buffers)
		p.upTo(i, frame.Head+len(before)+len(name))
		st = c.ensure(s, p, st)
		p.out = frame.AppendRenamed(p.out, kind, size, before, len(name), st.name)
		s.x.Extended(entry{Kind: kind, Note: st})
		bound = st
	default: // prepared by SQL in this transaction, or not at all
		if strings.HasPrefix(string(name), c.door.prefix) {
			p.open(&c.door.buffers)
			p.upTo(i, frame.Head+len(before)+len(name))
			p.out = frame.AppendRenamed(p.out, kind, size, before, len(name), c.door.prefix)
		}
		s.x.Extended(entry{Kind: kind})
	}
	if kind == 'B' {
		pr.bind(portalOf(kind, before), bound, s.statements.batch)
	}
}

// ensureUnnamed makes the server's unnamed statement the client's: the one that it has, or none. What an earlier batch was to
// leave is not certain before that has been answered, for it may be skipped.
func (c *client) ensureUnnamed(s *server, p *parcel, i int) {
	pr := &c.prepared
	if t := &s.statements; t.unnamed == pr.number && (t.since == t.batch || !s.x.Owes()) {
		return
	}
	p.open(&c.door.buffers)
	p.upTo(i, 0)
	if pr.number == 0 || pr.lost {
		p.out = frame.Append(p.out, 'C', "S", "\x00")
		s.x.Extended(entry{Kind: 'C', Swallow: true})
		s.statements.leave(0)
		pr.number = 0
		return
	}
	p.out = frame.Append(p.out, 'P', "\x00", string(pr.body))
	s.x.Extended(entry{Kind: 'P', Swallow: true, Note: pr.current})
	s.statements.leave(pr.number)
}

// close enters a Close. The statement stays at the server for others; the client gets the reply to one that closes nothing.
func (c *client) close(s *server, p *parcel, i, size int, before, name []byte) {
	pr := &c.prepared
	var st *statement
	switch {
	case name == nil:
	case len(name) == 0:
		pr.number = 0
		s.statements.leave(0)
	default:
		if st = pr.named[string(name)]; st != nil || strings.HasPrefix(string(name), c.door.prefix) {
			pr.drop(string(name))
			p.open(&c.door.buffers)
			p.upTo(i, frame.Head+len(before)+len(name))
			p.out = frame.AppendRenamed(p.out, 'C', size, before, len(name), c.door.prefix)
		}
	}
	s.x.Extended(entry{Kind: 'C', Note: st})
}

// dropped is told of a message that failed, or was skipped after one that did. The server is locked.
func (s *server) dropped(e entry) {
	st := e.Note
	switch e.Kind {
	case 'Q', 'C':
		// It did not end the unnamed statement, which may be another client's.
		s.statements.unnamed = unknown
	}
	if st == nil {
		return
	}
	c := s.client
	switch {
	case e.Kind == 'C' && e.As == 0 && e.Swallow: // to make room
		if s.statements.has[st.name] == nil {
			s.statements.has[st.name] = &copyOf{confirmed: true, doubtful: true}
		}
	case e.Kind == 'C' && e.As == 0: // the client still has it
		if c != nil && c.prepared.named[st.client] == nil {
			c.prepared.add(st)
		}
	case e.Kind == 'B':
		if c != nil {
			c.prepared.unbind()
		}
	case e.Kind != 'P' && e.As != '1':
	case st.twice:
	case st.unnamed:
		s.statements.unnamed = unknown
		if c != nil && !e.Swallow && c.prepared.current == st {
			c.prepared.number = 0
		}
	default:
		if e.Kind == 'P' {
			s.statements.distrust(st.name)
		}
		if c != nil && !e.Swallow && c.prepared.named[st.client] == st {
			c.prepared.drop(st.client)
		}
	}
}
