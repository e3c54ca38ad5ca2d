package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// guard is a marked condition: the bytes from start to end of a file are the expression.
type guard struct {
	name       string
	file       string // absolute
	src        []byte // of the file, as it was when the marks were read
	line       int
	start, end int
	// within is the operator that the expression is an operand of: && or ||; ILLEGAL if it is the whole of an if or case,
	// EQL if it is a value.
	within token.Token
}

const markPrefix = "guard:"

// findGuards reads the marks of all files of a package directory, tests excepted, in the order of files and lines.
func findGuards(dir string) ([]guard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var out []guard
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := guardsOf(file, src)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	seen := map[string]bool{}
	for _, g := range out {
		if seen[g.name] {
			return nil, fmt.Errorf("%s:%d: there is another guard called %s", g.file, g.line, g.name)
		}
		seen[g.name] = true
	}
	return out, nil
}

// guardsOf reads the marks of one file.
func guardsOf(file string, src []byte) ([]guard, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	conditions := conditionsByLine(fset, tree)
	var out []guard
	for _, group := range tree.Comments {
		for _, c := range group.List {
			marks, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(c.Text, "//")), markPrefix)
			if !ok {
				continue
			}
			line := fset.Position(c.Pos()).Line
			cond, ok := conditions[line]
			if !ok {
				return nil, fmt.Errorf("%s:%d: a guard is marked, but no condition ends on this line", file, line)
			}
			found, err := cond.guards(fset, strings.TrimSpace(marks))
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, line, err)
			}
			for _, g := range found {
				g.file, g.src, g.line = file, src, line
				out = append(out, g)
			}
		}
	}
	return out, nil
}

// condition is an expression that decides something: of an if, of a case without tag, or a value.
type condition struct {
	expr  ast.Expr
	value bool
}

// conditionsByLine finds the conditions by the line that they end on. Where two end on one line, that of the if or case
// is meant.
func conditionsByLine(fset *token.FileSet, tree *ast.File) map[int]condition {
	out := map[int]condition{}
	add := func(e ast.Expr, value bool) {
		line := fset.Position(e.End()).Line
		if old, there := out[line]; !there || old.value && !value {
			out[line] = condition{e, value}
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			add(n.Cond, false)
		case *ast.SwitchStmt:
			if n.Tag != nil {
				break
			}
			for _, c := range n.Body.List {
				if list := c.(*ast.CaseClause).List; len(list) == 1 {
					add(list[0], false)
				}
			}
		case *ast.ReturnStmt:
			if len(n.Results) == 1 {
				add(n.Results[0], true)
			}
		case *ast.AssignStmt:
			if len(n.Rhs) == 1 && len(n.Lhs) == 1 {
				add(n.Rhs[0], true)
			}
		}
		return true
	})
	return out
}

// guards makes the guards of a mark: NAME is the whole condition, NAME@2 the second of its operands, and NAME@2,4 two of
// them, called NAME@2 and NAME@4.
func (c condition) guards(fset *token.FileSet, mark string) ([]guard, error) {
	within := token.ILLEGAL
	if c.value {
		within = token.EQL
	}
	name, numbers, some := strings.Cut(mark, "@")
	if !some {
		return []guard{c.part(fset, name, leaf{c.expr, within})}, nil
	}
	leaves := operands(c.expr, within)
	list := strings.Split(numbers, ",")
	var out []guard
	for _, number := range list {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(leaves) {
			return nil, fmt.Errorf("guard %s: the condition has %d operands", mark, len(leaves))
		}
		called := name
		if len(list) > 1 {
			called += "@" + number
		}
		out = append(out, c.part(fset, called, leaves[n-1]))
	}
	return out, nil
}

func (c condition) part(fset *token.FileSet, name string, l leaf) guard {
	return guard{name: name, start: fset.Position(l.expr.Pos()).Offset, end: fset.Position(l.expr.End()).Offset, within: l.within}
}

type leaf struct {
	expr   ast.Expr
	within token.Token
}

// operands takes a condition apart at && and ||, from left to right.
func operands(e ast.Expr, within token.Token) []leaf {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return operands(e.X, within)
	case *ast.BinaryExpr:
		if e.Op == token.LAND || e.Op == token.LOR {
			return slices.Concat(operands(e.X, e.Op), operands(e.Y, e.Op))
		}
	}
	return []leaf{{e, within}}
}
