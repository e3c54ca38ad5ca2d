package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// maxFile bounds what is read as a configuration file.
const maxFile = 4 << 20

// Load reads and checks the configuration of one node. The Node is nil only if the report holds an error. For a client
// (see Source) Scope, Namespace, Etcd, RESTAPI and CTL are settled; the rest is as much as could be read.
func Load(src Source) (*Node, Report) {
	l := &loader{src: src, report: &Report{}, schema: schema.New()}
	n := l.load()
	l.report.sort()
	if !l.report.OK() {
		return nil, *l.report
	}
	return n, *l.report
}

// NodeNames lists the nodes that a file with the section nodes describes, in its order; nil where it has none.
func NodeNames(src Source) ([]string, Report) {
	l := &loader{src: src, report: &Report{}, schema: schema.New()}
	var names []string
	for _, doc := range l.documents() {
		if nodes := doc.Field("nodes"); nodes != nil {
			for _, f := range nodes.Fields {
				if !slices.Contains(names, f.Name) {
					names = append(names, f.Name)
				}
			}
		}
	}
	return names, *l.report
}

type loader struct {
	src    Source
	report *Report
	schema *schema.Table
	format Format
	doc    *tree.Value // all sources merged, later with defaults filled in
	name   string
	// address is the host by which others reach this node; see ownAddress.
	address string
	// proxies is how many nodes of the section nodes have a proxy; 0: there is no such section.
	proxies int
	// kept are the keys that have the values of a running node: files that they name were read at the start.
	kept map[string]bool
}

func (l *loader) load() *Node {
	docs := l.documents()
	if !l.report.OK() {
		return nil
	}
	env := l.environment()
	l.doc = &tree.Value{Shape: tree.Mapping, At: tree.Place{File: l.src.Path, Note: "the environment"}}
	if l.src.Path != "" && len(docs) > 0 {
		l.doc.At = tree.Place{File: docs[0].At.File, Line: 1, Column: 1}
	}
	for _, d := range docs {
		l.doc = tree.Merge(l.doc, d)
	}
	l.format = Patroni
	if h := l.doc.Field("haven"); h != nil && h.Shape != tree.Null {
		l.format = Haven
	}
	w := &schema.Walker{Strict: l.format == Haven, Errorf: l.report.errorf, Warnf: l.report.warnf, Schema: l.schema, Methods: schema.MethodNames(tree.Merge(l.doc, env))}
	if !l.src.Client { // to a command, keys without effect are no matter
		w.Inertf, w.Refusef = l.report.warnf, l.report.errorf
	}
	for _, d := range append(docs, env) {
		w.Walk("", d, l.schema)
	}
	if !l.chooseNode() {
		return nil
	}
	l.doc = tree.Merge(l.doc, env)
	if l.src.Name != "" {
		l.doc.Put("name", &tree.Value{Shape: tree.Scalar, Text: l.src.Name, Quoted: true, At: tree.Place{Note: "--name"}})
	}
	l.oneEtcd()
	written := l.doc.Clone()
	n := l.build()
	n.written, n.proxies = written, l.proxies
	return n
}

// documents reads the file, the files of the directory, or PATRONI_CONFIGURATION.
func (l *loader) documents() []*tree.Value {
	if l.src.Path == "" {
		content, ok := lookup(l.src.Env, "PATRONI_CONFIGURATION")
		if !ok || strings.TrimSpace(content) == "" {
			return nil
		}
		return keepParsed(tree.Parse("PATRONI_CONFIGURATION", []byte(content), l.report.errorf))
	}
	info, err := os.Stat(l.src.Path)
	if err != nil {
		l.unreadable(l.src.Path, err)
		return nil
	}
	if !info.IsDir() {
		return keepParsed(l.file(l.src.Path))
	}
	entries, err := os.ReadDir(l.src.Path)
	if err != nil {
		l.unreadable(l.src.Path, err)
		return nil
	}
	var docs []*tree.Value
	for _, e := range entries { // sorted by name
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yml" || ext == ".yaml") {
			docs = append(docs, keepParsed(l.file(filepath.Join(l.src.Path, e.Name())))...)
		}
	}
	if len(docs) == 0 && l.report.OK() {
		l.report.errorf(tree.Place{File: l.src.Path}, "the directory holds no *.yml or *.yaml file")
	}
	return docs
}

func keepParsed(v *tree.Value) []*tree.Value {
	if v == nil {
		return nil
	}
	return []*tree.Value{v}
}

func (l *loader) file(path string) *tree.Value {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		l.report.errorf(tree.Place{File: path}, "the file has %d bytes; a configuration has at most %d", info.Size(), maxFile)
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		l.unreadable(path, err)
		return nil
	}
	return tree.Parse(path, content, l.report.errorf)
}

func (l *loader) unreadable(path string, err error) {
	switch {
	case os.IsNotExist(err):
		l.report.errorf(tree.Place{File: path}, "there is no such file: check the path, or write one with `haven: {format: 1}`")
	case os.IsPermission(err):
		l.report.errorf(tree.Place{File: path}, "the file may not be read by this user: run as its owner, or allow it to be read")
	default:
		l.report.errorf(tree.Place{File: path}, "the file cannot be read: %v", err)
	}
}

// chooseNode lays the chosen entry of nodes over the rest, and settles the node's name.
func (l *loader) chooseNode() bool {
	l.name = l.src.Name
	if fromEnv, ok := lookup(l.src.Env, "PATRONI_NAME"); ok && l.name == "" {
		l.name = fromEnv
	}
	nodes := l.doc.Field("nodes")
	if nodes == nil || nodes.Shape != tree.Mapping {
		return true
	}
	if f := l.doc.Entry("name"); f != nil && f.Value.Shape != tree.Null {
		l.report.errorf(f.At, "`name` stands beside `nodes`, whose keys are the names: remove it, and choose with --name or PATRONI_NAME")
		return false
	}
	named := l.name != ""
	if !named {
		l.name = shortHost(l.src.Hostname)
	}
	chosen := nodes.Entry(l.name)
	if chosen == nil && l.src.Client && !named && len(nodes.Fields) > 0 {
		chosen = &nodes.Fields[0]
		l.name = chosen.Name
	}
	if chosen == nil {
		var names []string
		for _, f := range nodes.Fields {
			names = append(names, f.Name)
		}
		l.report.errorf(l.doc.Entry("nodes").At, "`nodes` has no node `%s` (it has %s): choose one with --name or PATRONI_NAME", l.name, strings.Join(names, ", "))
		return false
	}
	for _, f := range nodes.Fields {
		if v := tree.Merge(l.doc, f.Value).Field("proxy"); v != nil && v.Shape != tree.Null {
			l.proxies++
		}
	}
	l.doc = tree.Merge(l.doc, chosen.Value)
	l.doc.Drop("nodes")
	l.doc.Put("name", &tree.Value{Shape: tree.Scalar, Text: l.name, Quoted: true, At: chosen.At})
	return true
}

// oneEtcd gives the section etcd3 the name etcd.
func (l *loader) oneEtcd() {
	v2, v3 := l.doc.Entry("etcd"), l.doc.Entry("etcd3")
	haveV2, haveV3 := v2 != nil && v2.Value.Shape != tree.Null, v3 != nil && v3.Value.Shape != tree.Null
	switch {
	case haveV2 && haveV3:
		l.report.errorf(v3.At, "`etcd` and `etcd3` mean the same here and both are given: keep one")
	case haveV3:
		section := *v3
		l.doc.Drop("etcd")
		l.doc.Drop("etcd3")
		section.Name = "etcd"
		l.doc.Fields = append(l.doc.Fields, section)
	case haveV2 && l.format == Patroni:
		l.report.warnf(v2.At, "the section `etcd` is read as `etcd3` (etcd's v3 API): a member that really uses the v2 API does not see this one")
	}
}

func shortHost(name string) string {
	short, _, _ := strings.Cut(name, ".")
	return short
}

// lookup finds a variable in an environment; an empty one counts as not there.
func lookup(env []string, name string) (string, bool) {
	found := ""
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			found = v
		}
	}
	return found, found != ""
}

// path makes a path absolute: relative ones start at the folder of the file they stand in, or at the working directory.
func (l *loader) path(v *tree.Value) string {
	if v == nil || v.Text == "" {
		return ""
	}
	p := v.Text
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, ok := lookup(l.src.Env, "HOME"); ok {
			p = filepath.Join(home, rest)
		}
	}
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	if v.At.File != "" && v.At.File != "PATRONI_CONFIGURATION" {
		p = filepath.Join(filepath.Dir(v.At.File), p)
	}
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(l.src.WorkDir, p)
}

// FindFile tells which file a command reads: the explicit one, else HAVEN_CONFIG, PATRONICTL_CONFIG_FILE,
// /etc/haven/haven.yml, /etc/patroni/patroni.yml: the first that is there. A file that was named and is not there is
// an error. The result is empty, without an error, where the configuration stands in PATRONI_* variables.
func FindFile(explicit string, env []string) (string, error) {
	return findFile(explicit, env, "/")
}

func findFile(explicit string, env []string, root string) (string, error) {
	if explicit != "" {
		if strings.HasPrefix(explicit, "http://") || strings.HasPrefix(explicit, "https://") {
			return explicit, nil
		}
		if _, err := os.Stat(explicit); err != nil {
			return "", fmt.Errorf("find configuration %s: %w; give another file with -c", explicit, err)
		}
		return explicit, nil
	}
	for _, variable := range []string{"HAVEN_CONFIG", "PATRONICTL_CONFIG_FILE"} {
		if path, ok := lookup(env, variable); ok {
			if _, err := os.Stat(path); err != nil {
				return "", fmt.Errorf("find configuration: %s names %s: %w", variable, path, err)
			}
			return path, nil
		}
	}
	usual := []string{filepath.Join(root, "etc/haven/haven.yml"), filepath.Join(root, "etc/patroni/patroni.yml")}
	for _, path := range usual {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATRONI_") }) {
		return "", nil
	}
	return "", fmt.Errorf("no configuration found: neither %s is there; give one with -c FILE or HAVEN_CONFIG, or try `haven demo`, which needs none", strings.Join(usual, " nor "))
}
