package cli

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

// versions is what haven version tells.
type versions struct {
	Haven      string `json:"haven"`
	Go         string `json:"go"`
	PostgreSQL string `json:"postgresql,omitempty"`
	BinDir     string `json:"bin_dir,omitempty"`
	Problem    string `json:"problem,omitempty"` // why PostgreSQL is not known
}

func (c *console) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the versions of Haven, Go and the PostgreSQL that would be used", Args: atMost(0),
		RunE: func(*cobra.Command, []string) error {
			if err := c.noTSV(); err != nil {
				return err
			}
			v := versions{Haven: Version, Go: strings.TrimPrefix(runtime.Version(), "go")}
			if err := c.findPostgres(&v); err != nil {
				v.Problem = err.Error()
			}
			if c.structured() {
				return c.emit(c.out, v)
			}
			fmt.Fprintf(c.out, "haven %s\ngo %s\n", v.Haven, v.Go)
			if v.Problem != "" {
				fmt.Fprintf(c.out, "postgresql ? (%s)\n", v.Problem)
			} else {
				fmt.Fprintf(c.out, "postgresql %s (%s)\n", v.PostgreSQL, v.BinDir)
			}
			return nil
		},
	}
}

func (c *console) findPostgres(v *versions) error {
	node := &config.Node{Postgres: &config.Postgres{}}
	if file, err := config.FindFile(c.config, c.env); err == nil && file != "" && !isURL(file) {
		if loaded, err := c.load(file, c.env); err == nil && loaded.Postgres != nil {
			node = loaded
		}
	}
	dir, _, err := node.FindBinDir()
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return fmt.Errorf("%s/postgres --version: %w", dir, err)
	}
	_, text, _ := strings.Cut(strings.TrimSpace(string(out)), "(PostgreSQL) ")
	v.PostgreSQL, v.BinDir = text, dir
	return nil
}
