package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// choice is which member dsn and query are about.
type choice struct{ role, member string }

func (ch *choice) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&ch.role, "role", "r", "", strings.Join(roles(), ", "))
	cmd.Flags().StringVarP(&ch.member, "member", "m", "", "this `MEMBER`")
}

// pick is the member that was chosen: by its name, its role, or else the leader.
func (ch choice) pick(p picture) (cluster.Member, error) {
	role := ch.role
	switch {
	case role != "" && ch.member != "":
		return cluster.Member{}, &Failure{Code: ExitFailed, What: "--role and --member are mutually exclusive options"}
	case role == "master":
		role = "primary"
	case role == "" && ch.member != "":
		role = "any"
	case role == "":
		role = "leader"
	}
	if !slices.Contains(roles(), role) {
		return cluster.Member{}, misuse(fmt.Sprintf("Invalid value for '--role': '%s' is not one of '%s'", role, strings.Join(roles(), "', '")))
	}
	for _, m := range p.snap.Members {
		if (ch.member == "" || m.Name == ch.member) && p.hasRole(m, role) && m.Address() != "" {
			return m, nil
		}
	}
	return cluster.Member{}, &Failure{Code: ExitNotFound, What: "Can not find a suitable member"}
}

func (c *console) ctlDSN() *cobra.Command {
	var ch choice
	cmd := &cobra.Command{Use: "dsn [CLUSTER_NAME]", Short: "Print host and port of a member, the leader's by default", Args: ctlArgs(0, 1)}
	ch.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.eachCluster(cmd.Context(), args, func(p picture) error {
			m, err := ch.pick(p)
			if err != nil {
				return err
			}
			host, port, err := net.SplitHostPort(m.Address())
			fmt.Fprintf(c.out, "host=%s port=%s\n", host, port)
			return err
		})
	}
	return cmd
}

// query is SQL that a person sends to a member.
type query struct {
	choice
	c                                      *console
	file, command, user, dbname, delimiter string
	askPassword                            bool
	password                               string
}

func (c *console) ctlQuery() *cobra.Command {
	q := &query{c: c}
	var w refresh
	cmd := &cobra.Command{Use: "query [CLUSTER_NAME]", Short: "Send SQL to a member, the leader by default", Args: ctlArgs(0, 1)}
	f := cmd.Flags()
	f.StringVarP(&q.file, "file", "f", "", "read the SQL from this `FILE` (- is standard input)")
	f.StringVarP(&q.command, "command", "c", "", "the `SQL`")
	f.StringVarP(&q.user, "username", "U", "", "user of the database")
	f.StringVarP(&q.dbname, "dbname", "d", "", "database")
	f.BoolVar(&q.askPassword, "password", false, "ask for the password")
	f.StringVar(&q.delimiter, "delimiter", "\t", "between columns")
	q.flags(cmd)
	w.flags(cmd)
	c.formatFlag(cmd, "format", "", "tsv")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sql, err := q.text()
		if err != nil {
			return err
		}
		if err := q.login(cmd.Context()); err != nil {
			return err
		}
		return c.again(cmd.Context(), w.interval(), func() error {
			return c.eachCluster(cmd.Context(), args, func(p picture) error { return q.run(cmd.Context(), p, sql) })
		})
	}
	return cmd
}

func (q *query) text() (string, error) {
	switch {
	case q.file != "" && q.command != "":
		return "", &Failure{Code: ExitFailed, What: "--file and --command are mutually exclusive options"}
	case q.file == "" && q.command == "":
		return "", &Failure{Code: ExitFailed, What: "You need to specify either --command or --file"}
	case q.file == "-":
		content, err := io.ReadAll(q.c.in)
		return string(content), err
	case q.file != "":
		content, err := os.ReadFile(q.file)
		return string(content), err
	}
	return q.command, nil
}

func (q *query) login(ctx context.Context) error {
	if !q.askPassword {
		return nil
	}
	f, isFile := q.c.in.(*os.File)
	if !isFile || !q.c.inTTY {
		var err error
		q.password, err = q.c.prompt(ctx, "Password: ")
		return err
	}
	fmt.Fprint(q.c.out, "Password: ")
	secret, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(q.c.out)
	q.password = string(secret)
	return err
}

// run sends the statements, and prints the last result; an error of the server is a row, as patronictl has it, and fails
// the command.
func (q *query) run(ctx context.Context, p picture, sql string) error {
	m, err := q.pick(p)
	if err != nil {
		return q.rows([]string{}, [][]string{{time.Now().Format(time.DateTime), "No connection to role " + or(q.role, "leader") + " is available"}}, true)
	}
	host, port, err := net.SplitHostPort(m.Address())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(q.c.timeout, time.Hour))
	defer cancel()
	names, rows, err := q.ask(ctx, host, port, sql)
	if err != nil {
		return q.rows([]string{}, [][]string{{time.Now().Format(time.DateTime), serverError(err)}}, true)
	}
	return q.rows(names, rows, false)
}

// serverError is an error in one line, with its code if the server sent one.
func serverError(err error) string {
	var e *pgconn.PgError
	code := ""
	if errors.As(err, &e) {
		code = e.Code
	}
	return "ERROR, SQLSTATE: " + strings.Join(strings.Fields(code+" "+err.Error()), " ")
}

func (q *query) ask(ctx context.Context, host, port, sql string) ([]string, [][]string, error) {
	text := fmt.Sprintf("host=%s port=%s connect_timeout=5", host, port)
	for _, o := range []struct{ name, value string }{{"user", q.user}, {"dbname", q.dbname}, {"password", q.password}} {
		if o.value != "" {
			text += fmt.Sprintf(" %s='%s'", o.name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(o.value))
		}
	}
	cfg, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, nil, err
	}
	return lastRows(results[len(results)-1])
}

// pythonText is a value as patronictl, a Python program, shows it.
func pythonText(v []byte, oid uint32) string {
	switch {
	case v == nil:
		return "None"
	case oid == pgtype.BoolOID && string(v) == "t":
		return "True"
	case oid == pgtype.BoolOID:
		return "False"
	}
	return string(v)
}

func lastRows(r *pgconn.Result) ([]string, [][]string, error) {
	var names []string
	for _, d := range r.FieldDescriptions {
		names = append(names, d.Name)
	}
	var rows [][]string
	for _, raw := range r.Rows {
		row := make([]string, len(raw))
		for i, v := range raw {
			row[i] = pythonText(v, r.FieldDescriptions[i].DataTypeOID)
		}
		rows = append(rows, row)
	}
	return names, rows, r.Err
}

func (q *query) rows(names []string, rows [][]string, failed bool) error {
	if err := q.print(names, rows); err != nil {
		return err
	}
	if failed {
		return verdictCode(ExitFailed)
	}
	return nil
}

func (q *query) print(names []string, rows [][]string) error {
	if q.c.structured() {
		list := []map[string]string{}
		for _, r := range rows {
			m := map[string]string{}
			for i, v := range r {
				if i < len(names) {
					m[names[i]] = v
				} else {
					m[fmt.Sprint(i)] = v
				}
			}
			list = append(list, m)
		}
		return q.c.emit(q.c.out, list)
	}
	if q.c.output == "tsv" {
		for _, r := range append([][]string{names}, rows...) {
			if len(r) > 0 {
				fmt.Fprintln(q.c.out, strings.Join(r, q.delimiter))
			}
		}
		return nil
	}
	g := grid{rows: rows}
	for i := range max(len(names), widest(rows)) {
		name := fmt.Sprintf("Field %d", i+1)
		if i < len(names) {
			name = names[i]
		}
		g.columns = append(g.columns, column{name: name})
	}
	_, err := fmt.Fprint(q.c.out, g.String())
	return err
}

func widest(rows [][]string) int {
	n := 0
	for _, r := range rows {
		n = max(n, len(r))
	}
	return n
}
