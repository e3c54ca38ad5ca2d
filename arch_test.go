// Package haven holds the tests of the repository as a whole: its layers, the purity of its core, sizes, and the truth of
// its documents. It has no code of its own.
package haven

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/havenha/haven"

// layers says which packages of ours each package may import, in the manner of go/build's deps_test. A line reads
//
//	IMPORTED... < IMPORTER...
//
// and is not transitive: what is not written here may not be imported. A package that no line has on its right may
// import none of ours. Siblings of one layer do not meet, except in app, and what app, cli and demo put together.
// Tests may import what they like of lower layers; they are not checked.
const layers = `
# vocabulary
NONE                                            < cluster, freeport, freeze
cluster                                         < bootclock

# the configuration: how values are written, where they stand, what they mean
NONE                                            < config/notation, config/sockets, config/bindir
config/notation                                 < config/tree
config/notation, config/tree                    < config/schema
config/bindir, config/notation, config/schema, config/sockets, config/tree < config

# the pure core
cluster                                         < ha, check
NONE                                            < pool, pgwire, pgwire/frame
cluster, ha                                     < ha/sim

# adapters: each to one thing of the world
cluster                                         < dcs, postgres/wal
NONE                                            < disk, postgres/basebackup, postgres/conf, postgres/durable, postgres/pidfile, postgres/programs, postgres/script, postgres/session
NONE                                            < pgwire, proxy/socket
postgres/pidfile                                < postgres/processes, postgres/shmem
cluster, postgres/durable, postgres/session     < postgres/slots
cluster, postgres/basebackup, postgres/conf, postgres/durable, postgres/pidfile, postgres/processes, postgres/programs, postgres/script, postgres/session, postgres/shmem, postgres/slots, postgres/wal < postgres
bootclock, cluster, postgres/pidfile, postgres/processes < guard
bootclock, cluster, dcs                         < dcs/etcd
bootclock, cluster, dcs, freeport, freeze       < dcs/dcstest
freeport, postgres, postgres/programs, postgres/shmem < postgres/pgtest
check                                           < journal
config                                          < obs

# drills: hosts, what runs on them, load with known content
NONE                                            < drill/hosts
drill/hosts, postgres/shmem                     < drill/stack
check, cluster, journal                         < drill

# services
bootclock, cluster, config, dcs, guard, ha, journal, postgres, postgres/durable, postgres/slots, postgres/wal < agent
config/notation                                 < proxy/listen
config, pgwire, pgwire/frame, pool, proxy/socket < proxy/pooled
config, pgwire, proxy/pooled                    < proxy/login
proxy/listen                                    < proxy/addresses
bootclock, cluster, config, dcs, postgres, proxy/addresses, proxy/listen, proxy/login, proxy/pooled, proxy/socket < proxy
cluster, config, dcs, ha, postgres              < api

# wiring, and what stands on it
cluster, config, dcs/etcd                       < doctor
agent, api, bootclock, cluster, config, dcs, dcs/etcd, disk, doctor, guard, journal, postgres, proxy < app
check, cluster, dcs, dcs/etcd, drill, freeport, postgres/shmem < demo
agent, api, app, bootclock, cluster, config, dcs, dcs/etcd, demo, doctor, ha, journal, obs, postgres < cli
`

// pure packages decide or describe. They take the time as a value and touch nothing of the world.
func pure() []string { return []string{"check", "cluster", "ha", "ha/sim", "pool"} }

// impure are standard packages that a pure package may not import; their subpackages neither, except net/url, which
// only takes text apart.
func impure() []string {
	return []string{"context", "crypto/rand", "database", "log", "math/rand", "net", "os", "runtime", "sync", "syscall", "testing"}
}

// clock lists the calls that read a clock or wait for it.
func clock() []string {
	return []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}
}

// Limits of size; the tables that may be longer are listed with them.
const (
	maxFunctionLines = 80
	maxFileLines     = 800
	maxReadmeLines   = 200
)

// longTables are flat tables or switches that are clearer whole.
func longTables() []string { return []string{"e2e.TestBadDays"} }

// vagueNames say nothing about what a package is for.
func vagueNames() []string {
	return []string{"utils", "util", "common", "helpers", "helper", "types", "models", "manager", "misc", "base"}
}

// source is one Go file of ours.
type source struct {
	path string // from the root of the repository
	text []byte
	file *ast.File
	fset *token.FileSet
}

func (s source) test() bool     { return strings.HasSuffix(s.path, "_test.go") }
func (s source) folder() string { return path.Dir(s.path) }

// pkg is the name by which layers knows the file's package.
func (s source) pkg() string { return strings.TrimPrefix(s.folder(), "internal/") }

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// walk visits the files of the repository, except what is built, fetched or test data.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "dist", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && d.Name() != ".git" { // a file in a worktree
			visit(p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	walk(t, func(p string) {
		if filepath.Ext(p) != ".go" {
			return
		}
		s := source{path: p, fset: token.NewFileSet()}
		var err error
		if s.text, err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
		if s.file, err = parser.ParseFile(s.fset, p, s.text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	})
	return out
}

// allowed reads layers.
func allowed(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for line := range strings.Lines(layers) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		left, right, ok := strings.Cut(line, "<")
		if !ok {
			t.Fatalf("layers: %q has no <", line)
		}
		for importer := range strings.SplitSeq(right, ",") {
			for imported := range strings.SplitSeq(left, ",") {
				importer := strings.TrimSpace(importer)
				out[importer] = append(out[importer], strings.TrimSpace(imported))
			}
		}
	}
	return out
}

func imports(s source) []string {
	var out []string
	for _, i := range s.file.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		out = append(out, name)
	}
	return out
}

func TestLayers(t *testing.T) {
	table := allowed(t)
	for _, s := range sources(t) {
		if s.test() || !strings.HasPrefix(s.path, "internal/") {
			continue
		}
		may, listed := table[s.pkg()]
		if !listed {
			t.Errorf("%s: package %s is not in the table of layers", s.path, s.pkg())
			continue
		}
		for _, name := range imports(s) {
			if ours, ok := strings.CutPrefix(name, module+"/internal/"); ok && !slices.Contains(may, ours) {
				t.Errorf("%s: %s may not import %s (arch_test.go, layers)", s.path, s.pkg(), ours)
			}
		}
	}
	for name := range table {
		if _, err := os.Stat(filepath.Join("internal", name)); err != nil {
			t.Errorf("layers names %s, which does not exist", name)
		}
	}
}

// TestMainIsThin keeps cmd/haven to signals, the exit code, and the guard process, which is to start nothing else.
func TestMainIsThin(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.path, "cmd/") {
			continue
		}
		if s.folder() != "cmd/haven" {
			t.Errorf("%s: the only program is cmd/haven", s.path)
		}
		for _, name := range imports(s) {
			if ours, ok := strings.CutPrefix(name, module+"/"); ok && ours != "internal/cli" && ours != "internal/guard" {
				t.Errorf("%s imports %s; only internal/cli and internal/guard belong here", s.path, ours)
			}
		}
	}
}

func TestPurity(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || !slices.Contains(pure(), s.pkg()) {
			continue
		}
		for _, name := range imports(s) {
			for _, no := range impure() {
				if (name == no || strings.HasPrefix(name, no+"/")) && name != "net/url" {
					t.Errorf("%s imports %s, and is to be pure", s.path, name)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock(), sel.Sel.Name) {
					t.Errorf("%s: time.%s reads the clock, and the package is to be pure", s.at(n), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(vagueNames(), s.file.Name.Name) {
			t.Errorf("%s: a package called %s does not say what it is for", s.path, s.file.Name.Name)
		}
	}
}

func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		documented[s.folder()] = documented[s.folder()] || s.file.Doc != nil
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s: no file has a package comment", folder)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, s := range sources(t) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
		} else if !bytes.Equal(want, s.text) {
			t.Errorf("%s: run gofmt -w on it", s.path)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.path, n, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || slices.Contains(longTables(), s.pkg()+"."+f.Name.Name) {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", s.at(f), f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// TestNoGlobalState allows package variables only for what is never written: error values, compiled patterns, embedded
// files, constant bytes and assertions that a type fits an interface.
func TestNoGlobalState(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: func init runs unasked", s.at(d))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !s.test() {
					checkVariables(t, s, d)
				}
			}
		}
	}
}

func checkVariables(t *testing.T, s source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		for i, name := range v.Names {
			if name.Name == "_" || fixedType(v.Type) || i < len(v.Values) && fixedValue(v.Values[i]) {
				continue
			}
			if s.path == "cmd/haven/main.go" && name.Name == "version" {
				continue // the linker sets it
			}
			t.Errorf("%s: %s is state that belongs to a package", s.at(v), name.Name)
		}
	}
}

// fixedType tells whether a variable of that type cannot be changed in a way that matters.
func fixedType(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "FS"
}

func fixedValue(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CallExpr:
		sel, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		return slices.Contains([]string{"New", "Errorf", "MustCompile", "OnceValue"}, sel.Sel.Name) && isPackage(sel.X, "errors", "fmt", "regexp", "sync")
	case *ast.CompositeLit:
		array, ok := e.Type.(*ast.ArrayType)
		return ok && array.Len != nil // an array is a value: readers get copies
	}
	return false
}

func isPackage(e ast.Expr, names ...string) bool {
	id, ok := e.(*ast.Ident)
	return ok && slices.Contains(names, id.Name)
}

func TestNoLooseEnds(t *testing.T) {
	loose := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b(\(#\d+\))?`)
	for _, s := range sources(t) {
		for i, line := range strings.Split(string(s.text), "\n") {
			if m := loose.FindStringSubmatch(line); len(m) == 3 && m[2] == "" {
				t.Errorf("%s:%d: %s without the number of an issue", s.path, i+1, m[1])
			}
		}
	}
}

// TestNoPathsOfTheAuthor keeps folders of the machine that the code was written on out of the repository.
func TestNoPathsOfTheAuthor(t *testing.T) {
	foreign := regexp.MustCompile(`/` + `work/(main|shared)|\.\./` + `shared/|/tmp/` + `briefs`)
	walk(t, func(p string) {
		if p == ".git" { // of a worktree, which names the repository
			return
		}
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if foreign.MatchString(line) {
				t.Errorf("%s:%d: a path of one machine: %s", p, i+1, strings.TrimSpace(line))
			}
		}
	})
}

func TestReadmeIsShort(t *testing.T) {
	text := read(t, "README.md")
	if n := strings.Count(text, "\n"); n > maxReadmeLines {
		t.Errorf("README.md has %d lines, more than %d", n, maxReadmeLines)
	}
}

func read(t *testing.T, p string) string {
	t.Helper()
	text, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestArchitectureNamesThePackages holds the map in ARCHITECTURE.md against the tree: every package that exists, no other.
func TestArchitectureNamesThePackages(t *testing.T) {
	exist := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasPrefix(s.path, "internal/") {
			exist[s.folder()] = true
		}
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(internal/[a-z/]+)`").FindAllStringSubmatch(read(t, "ARCHITECTURE.md"), -1) {
		named[strings.TrimSuffix(m[1], "/")] = true
	}
	for _, p := range slices.Sorted(maps.Keys(exist)) {
		if !named[p] {
			t.Errorf("ARCHITECTURE.md does not name %s", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(named)) {
		if !exist[p] {
			t.Errorf("ARCHITECTURE.md names %s, which does not exist", p)
		}
	}
}

// TestLinks follows every relative link of the documents, with its heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	walk(t, func(p string) {
		if filepath.Ext(p) != ".md" {
			return
		}
		for _, m := range link.FindAllStringSubmatch(prose(read(t, p)), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue
			}
			file := p
			if target != "" {
				file = filepath.Join(filepath.Dir(p), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", p, m[1])
			} else if heading != "" && !slices.Contains(headings(read(t, file)), heading) {
				t.Errorf("%s: %s has no heading #%s", p, file, heading)
			}
		}
	})
}

// prose is a Markdown text without its blocks of code.
func prose(text string) string {
	var out strings.Builder
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
			continue
		}
		if !code {
			out.WriteString(line)
		}
	}
	return out.String()
}

// headings are the anchors of a Markdown text, as GitHub makes them.
func headings(text string) []string {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	var out []string
	for line := range strings.Lines(prose(text)) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			out = append(out, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-"))
		}
	}
	return out
}

// TestCitedTestsExist makes sure that a test which a document names, as `TestName`, or `TestName/case`, exists.
func TestCitedTestsExist(t *testing.T) {
	exist := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test() {
				exist[f.Name.Name] = true
			}
		}
	}
	for _, s := range sources(t) { // suites that several packages run
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				exist[f.Name.Name] = exist[f.Name.Name] || strings.HasPrefix(f.Name.Name, "Test")
			}
		}
	}
	cited := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)[`/]")
	walk(t, func(p string) {
		if filepath.Ext(p) != ".md" {
			return
		}
		for _, m := range cited.FindAllStringSubmatch(read(t, p), -1) {
			if !exist[m[1]] {
				t.Errorf("%s cites %s, which does not exist", p, m[1])
			}
		}
	})
}
