package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// InitDB makes a new database in an absent or empty data directory, with the superuser and its password.
func (i *Instance) InitDB(ctx context.Context) error {
	err := i.populate("initdb", func(dir string, _ *marker) error {
		args := []string{"--pgdata=" + dir, "--username=" + i.logins().Superuser.Username}
		if pw := i.logins().Superuser.Password; pw != "" {
			file, err := i.passwordFile(pw)
			if err != nil {
				return err
			}
			defer os.Remove(file)
			args = append(args, "--pwfile="+file)
		}
		cmd := i.command(ctx, i.bin("initdb"), append(args, i.opt.InitDB...)...)
		// populate makes everything durable at once, more cheaply.
		cmd.Args = append(cmd.Args, "--no-sync")
		return i.run(cmd)
	})
	if err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// passwordFile is for --pwfile, which keeps the password off the command line.
func (i *Instance) passwordFile(pw string) (string, error) {
	f, err := os.CreateTemp("", "haven-pw-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(pw + "\n")
	if err = errors.Join(err, f.Close(), i.chown(f.Name())); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
