package cli

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

func (c *console) showConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show-config [CLUSTER]", Short: "Show the dynamic configuration", Args: atMost(1),
		Long: "Show the dynamic configuration as it stands in etcd, as YAML. Secrets are shown as ******.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.noTSV(); err != nil {
				return err
			}
			return c.show(cmd.Context(), args, 0, view{show: func(w io.Writer, p picture) error { return c.dynamic(w, p) }})
		},
	}
}

func (c *console) dynamic(w io.Writer, p picture) error {
	if p.snap.Config == nil {
		return noConfig(p)
	}
	var whole any
	if err := json.Unmarshal(p.snap.Config.Raw, &whole); err != nil {
		return &Failure{Code: ExitFailed, What: "the dynamic configuration is not valid JSON: " + err.Error()}
	}
	form := *c
	if c.output == "text" {
		form.output = "yaml"
	}
	if c.ctl != nil { // what is shown may be given back to edit-config --replace
		return form.emit(w, whole)
	}
	return form.emit(w, masked("", whole))
}

// masked hides what a key's name says is a secret.
func masked(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = masked(strings.ToLower(k), v[k])
		}
	case []any:
		for i := range v {
			v[i] = masked(key, v[i])
		}
	case string:
		if config.SecretName(key) || strings.Contains(v, "password=") {
			return config.Mask
		}
		return config.MaskInside(v)
	}
	return v
}
