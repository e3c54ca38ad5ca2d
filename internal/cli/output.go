package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// emit writes a document as JSON in one line or as YAML with sorted keys.
func (c *console) emit(w io.Writer, v any) error {
	content, err := compact(v)
	if err != nil {
		return err
	}
	if c.output == "json" {
		_, err = fmt.Fprintf(w, "%s\n", content)
		return err
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		return err
	}
	if c.ctl != nil {
		return ctlYAML(w, numbers(plain))
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(numbers(plain)); err != nil {
		return err
	}
	return e.Close()
}

func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// numbers turns JSON's numbers into Go's, so that YAML does not quote them.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return v
}

// structured tells whether the output is for machines.
func (c *console) structured() bool { return c.output == "json" || c.output == "yaml" }

// noTSV refuses -o tsv where there is no table.
func (c *console) noTSV() error {
	if c.output == "tsv" {
		return usage("-o tsv is for tables: list, topology, history", "use -o json or yaml")
	}
	return nil
}

// color puts a colour around a text on a terminal that may show it.
func (c *console) color(code, s string) string {
	if !c.outTTY || c.noColor || c.getenv("NO_COLOR") != "" || c.getenv("TERM") == "dumb" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
