package proxy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// Reload takes a new configuration into use: listeners come, go and change their settings, and the others are not
// touched. A listener that goes, or gets another target, resets its sessions. If a new port cannot be had, nothing has
// changed, unless that port moves from one setting to another; the error says which.
func (p *Proxy) Reload(c *config.Proxy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil && p.running.Err() != nil {
		return errors.New("proxy: it has ended")
	}
	p.config.Auth, p.config.TLS = c.Auth, c.TLS // for listeners that come or begin anew
	errs := []error{p.reloadListeners(c.Listeners), p.reloadPage(c.Stats)}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("proxy: reload: %w", err)
	}
	p.config.Listeners, p.config.Stats = c.Listeners, c.Stats
	return nil
}

func (p *Proxy) reloadListeners(want []config.Listener) error {
	var gone []*listener
	kept := map[string]bool{}
	for _, l := range p.listeners {
		i := slices.IndexFunc(want, func(c config.Listener) bool { return continues(l, c) })
		if i < 0 {
			gone = append(gone, l)
			continue
		}
		kept[want[i].Listen] = true
		p.board.configure(l.ledger, want[i])
	}
	was := len(p.listeners)
	later, err := p.addNew(want, kept, gone)
	if err != nil {
		for _, l := range p.listeners[was:] {
			l.close()
		}
		p.listeners = p.listeners[:was]
		return err
	}
	p.remove(gone)
	var errs []error
	for _, c := range later {
		errs = append(errs, p.add(c))
	}
	p.sort(want)
	return errors.Join(errs...)
}

// continues tells whether a listener can go on under a setting: the same port, for the same kind of server. A pooled one
// begins anew with any change.
func continues(l *listener, c config.Listener) bool {
	now := l.ledger.config
	return now.Listen == c.Listen && now.SocketMode == c.SocketMode && now.SocketGroup == c.SocketGroup && now.Target == c.Target && now.Mode == c.Mode && (!c.Pooled() || reflect.DeepEqual(now, c))
}

// addNew opens what is new; later are those whose port has to be freed first.
func (p *Proxy) addNew(want []config.Listener, kept map[string]bool, gone []*listener) (later []config.Listener, err error) {
	for _, c := range want {
		switch {
		case kept[c.Listen]:
		case slices.ContainsFunc(gone, func(l *listener) bool { return portOf(l.ledger.config.Listen) == portOf(c.Listen) }):
			later = append(later, c)
		default:
			if err := p.add(c); err != nil {
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
