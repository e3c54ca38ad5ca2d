package config

import (
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// Reload reads the configuration of a running node again, from where it was read. What only a restart takes into use stays in next as it
// runs: so no part of the program sees a new name or address of a member whose key, leadership or server has the old one. apply are the
// keys that have changed, restart those that are written otherwise than they run. With faults next is nil.
func Reload(running *Node) (next *Node, apply, restart []string, r Report) {
	next, r = Load(running.src)
	if next == nil {
		return nil, nil, nil, r
	}
	if next.Format != running.Format {
		r.errorf(next.doc.At, "the format of the configuration has changed (`haven.format`): only a restart takes that into use")
		return nil, nil, nil, r
	}
	apply, restart = Diff(running, next)
	if len(restart) == 0 {
		return next, apply, nil, r
	}
	again := Report{}
	l := &loader{src: running.src, report: &again, schema: schema.New(), format: running.Format, doc: next.written.Clone(), proxies: next.proxies, kept: map[string]bool{}}
	l.keep(running, next, restart)
	written := l.doc.Clone()
	next = l.build()
	next.written, next.proxies = written, l.proxies
	again.sort()
	if !again.OK() {
		return nil, nil, nil, again
	}
	for _, f := range again.Faults { // r has those of the file as well
		if !slices.Contains(r.Faults, f) {
			r.Faults = append(r.Faults, f)
		}
	}
	return next, apply, restart, r
}

// keep puts back what a running node has for these keys, and its sections that make a role.
func (l *loader) keep(running, next *Node, keys []string) {
	whole := map[string]bool{}
	for _, section := range roleSections() {
		if running.has(section) != next.has(section) {
			whole[section] = true
			l.doc.Drop(section)
			if v := running.written.Field(section); v != nil {
				l.doc.Put(section, v.Clone())
			}
		}
	}
	for _, path := range keys {
		section, _, _ := strings.Cut(path, ".")
		if whole[section] {
			continue
		}
		path, _, _ = strings.Cut(path, "[")           // a list is one value
		if strings.HasPrefix(path, "etcd.members.") { // names of members may have dots
			path = "etcd.members"
		}
		group := []string{path}
		if secret, ok := strings.CutSuffix(path, "_file"); ok {
			group = append(group, secret)
		}
		if all := etcdTLS(); slices.Contains(all, path) {
			group = all
		}
		for _, path := range group {
			l.kept[path] = true
			l.put(path, running.doc)
		}
	}
}

// etcdTLS are keys that are taken from haven.tls together, or not at all.
func etcdTLS() []string { return []string{"etcd.cacert", "etcd.cert", "etcd.key"} }

// put gives a key the value that it has in another document; what that has not, not even a part of it, is dropped.
func (l *loader) put(path string, from *tree.Value) {
	if v := from.Find(path); v != nil {
		l.doc.Set(path, v.Clone())
		return
	}
	for {
		dir, last, nested := tree.CutLast(path)
		parent := l.doc
		if nested {
			parent = l.doc.Find(dir)
		}
		if parent == nil {
			return
		}
		parent.Drop(last)
		if !nested || len(parent.Fields) > 0 || from.Find(dir) != nil {
			return
		}
		path = dir
	}
}
