package proxy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/proxy/listen"
	"github.com/havenha/haven/internal/proxy/login"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// Reload takes a new configuration into use: listeners come, go and change their settings, and the others are not
// touched. A listener that goes, or gets another target, resets its sessions; pooled clients keep theirs with any other
// settings, for which files of users, rules and certificates are read again. If a new port or such a file cannot be had,
// nothing has changed. Where a port moves from one setting to another and cannot be had again, the former setting is restored, and the
// error says which.
func (p *Proxy) Reload(c *config.Proxy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil && p.running.Err() != nil {
		return errors.New("proxy: it has ended")
	}
	errs := []error{p.reloadListeners(c), p.reloadPage(c.Stats)}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("proxy: reload: %w", err)
	}
	p.config = *c
	return nil
}

// change is what a listener that goes on is to become.
type change struct {
	listener *listener
	config   config.Listener
	terms    pooled.Terms // of the pooled modes
}

func (ch change) apply(b *board) {
	b.configure(ch.listener.ledger, ch.config)
	if ch.listener.door != nil {
		ch.listener.door.Reconfigure(ch.terms)
	}
}

func (p *Proxy) reloadListeners(c *config.Proxy) error {
	changes, gone, err := p.compare(c)
	if err != nil {
		return err
	}
	was := len(p.listeners)
	later, err := p.addNew(c, changes, gone)
	for _, one := range later {
		err = errors.Join(err, possible(c, one))
	}
	if err != nil {
		for _, l := range p.listeners[was:] {
			l.close()
		}
		p.listeners = p.listeners[:was]
		return err
	}
	for _, ch := range changes {
		ch.apply(p.board)
	}
	p.remove(gone)
	var errs []error
	for _, one := range later {
		if err := p.add(c, one); err != nil {
			errs = append(errs, err, p.restore(gone, one))
		}
	}
	p.sort(c.Listeners)
	return errors.Join(errs...)
}

// possible tells what a listener would fail for, beside its port.
func possible(under *config.Proxy, c config.Listener) error {
	err := listen.Check(c.Listen, listen.Unix{Group: c.SocketGroup})
	if c.Pooled() {
		_, _, unread := login.Read(login.Options{Proxy: under})
		err = errors.Join(err, unread)
	}
	if err != nil {
		return fmt.Errorf("listener %s: %w", c.Listen, err)
	}
	return nil
}

// restore opens again what has made room for a listener that could not be opened after all.
func (p *Proxy) restore(gone []*listener, failed config.Listener) error {
	var errs []error
	for _, l := range gone {
		old := l.ledger.config
		taken := slices.ContainsFunc(p.listeners, func(l *listener) bool { return portOf(l.ledger.config.Listen) == portOf(old.Listen) })
		if portOf(old.Listen) == portOf(failed.Listen) && !taken {
			errs = append(errs, p.add(&p.config, old))
		}
	}
	return errors.Join(errs...)
}

// compare finds what becomes of the listeners that there are, and changes nothing.
func (p *Proxy) compare(c *config.Proxy) (changes []change, gone []*listener, err error) {
	for _, l := range p.listeners {
		i := slices.IndexFunc(c.Listeners, func(one config.Listener) bool { return continues(l, one) })
		if i < 0 {
			gone = append(gone, l)
			continue
		}
		ch := change{listener: l, config: c.Listeners[i]}
		if l.door != nil {
			if ch.terms, err = terms(l, c, ch.config); err != nil {
				return nil, nil, fmt.Errorf("listener %s: %w", ch.config.Listen, err)
			}
		}
		changes = append(changes, ch)
	}
	return changes, gone, nil
}

// continues tells whether a listener can go on under a setting: the same sockets, for the same kind of server, in the same
// mode, with the same parameters that sessions carry along.
func continues(l *listener, c config.Listener) bool {
	now := l.ledger.config
	return now.Listen == c.Listen && now.SocketMode == c.SocketMode && now.SocketGroup == c.SocketGroup && now.Target == c.Target &&
		now.Mode == c.Mode && slices.Equal(now.Pool.TrackExtraParameters, c.Pool.TrackExtraParameters)
}

// addNew opens what is new; later are those whose port has to be freed first.
func (p *Proxy) addNew(under *config.Proxy, kept []change, gone []*listener) (later []config.Listener, err error) {
	for _, c := range under.Listeners {
		switch {
		case slices.ContainsFunc(kept, func(ch change) bool { return ch.config.Listen == c.Listen }):
		case slices.ContainsFunc(gone, func(l *listener) bool { return portOf(l.ledger.config.Listen) == portOf(c.Listen) }):
			later = append(later, c)
		default:
			if err := p.add(under, c); err != nil {
				return nil, err
			}
		}
	}
	return later, nil
}

func portOf(listen string) string { return listen[strings.LastIndexByte(listen, ':')+1:] }

func (p *Proxy) remove(gone []*listener) {
	for _, l := range gone {
		l.close()
		p.listeners = slices.DeleteFunc(p.listeners, func(other *listener) bool { return other == l })
	}
}

// sort puts the listeners into the order of the configuration.
func (p *Proxy) sort(want []config.Listener) {
	place := func(l *listener) int {
		return slices.IndexFunc(want, func(c config.Listener) bool { return continues(l, c) })
	}
	slices.SortStableFunc(p.listeners, func(a, b *listener) int { return place(a) - place(b) })
	p.board.sort(p.listeners)
}

func (p *Proxy) reloadPage(c *config.Stats) error {
	switch {
	case reflect.DeepEqual(c, p.config.Stats):
		return nil
	case c != nil && p.page != nil && c.Listen == p.page.listensOn():
		p.page.configure(*c)
		return nil
	}
	old := p.page
	if old != nil && (c == nil || portOf(c.Listen) == portOf(old.listensOn())) {
		old.close()
		old, p.page = nil, nil
	}
	if err := p.openPage(c); err != nil {
		return err
	}
	if old != nil {
		old.close()
	}
	if p.page != nil && p.running != nil {
		p.page.start()
	}
	return nil
}
