package doctor

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// Facts are what a node tells of itself to somebody who may ask.
type Facts struct {
	Name     string           `json:"name"`
	Scope    string           `json:"scope"`
	At       time.Time        `json:"at"` // by the node's clock
	Haven    string           `json:"haven"`
	Postgres string           `json:"postgres,omitempty"` // 15.18; empty: no database
	SystemID string           `json:"system_id,omitempty"`
	Writable bool             `json:"writable"` // its server answers, and is no standby
	Position cluster.LSN      `json:"position,omitempty"`
	Timeline cluster.Timeline `json:"timeline,omitempty"`
	// Secrets are hashes under the asker's salt, by the path of the key; null: the REST API asks for no password.
	Secrets map[string]string `json:"secrets"`
	// Settings are those of PostgreSQL that Settings names, as pg_settings shows them; empty: the server does not answer.
	Settings     map[string]string `json:"settings,omitempty"`
	ReplayPaused bool              `json:"replay_paused,omitempty"`
	Conflicts    int64             `json:"conflicts,omitempty"` // queries cancelled for replay, pg_stat_database_conflicts
	Findings     []Finding         `json:"findings"`
}

// Question is what a node is asked with.
type Question struct {
	Salt string `json:"salt"` // hexadecimal, at least 16 bytes
}

// minSalt is the least length of a salt, in bytes.
const minSalt = 16

// iterations make guessing a password by its hash expensive. Who gets hashes has the REST API's password already.
const iterations = 50_000

// Hashes are the hashes of a node's secrets with the names of their roles, by path. An error: the salt is too short.
func Hashes(n *config.Node, salt string) (map[string]string, error) {
	raw, err := hex.DecodeString(salt)
	if err != nil || len(raw) < minSalt {
		return nil, fmt.Errorf("the salt has to be %d bytes or more, in hexadecimal", minSalt)
	}
	out := map[string]string{}
	for path, value := range secretsOf(n) {
		key, err := pbkdf2.Key(sha256.New, value, append([]byte(path), raw...), iterations, 16)
		if err != nil {
			return nil, err
		}
		out[path] = base64.RawStdEncoding.EncodeToString(key)
	}
	return out, nil
}

// secretsOf are the secrets that all nodes have to share; absent ones are left out.
func secretsOf(n *config.Node) map[string]string {
	out := map[string]string{}
	add := func(path, user, password string) {
		if password != "" {
			out[path] = user + "\x00" + password
		}
	}
	if p := n.Postgres; p != nil {
		add("postgresql.authentication.superuser", p.Superuser.Username, p.Superuser.Password)
		add("postgresql.authentication.replication", p.Replication.Username, p.Replication.Password)
		add("postgresql.authentication.rewind", p.Rewind.Username, p.Rewind.Password)
	}
	add("restapi.authentication", n.RESTAPI.Username, n.RESTAPI.Password)
	return out
}

// Settings are the settings of PostgreSQL that are judged.
func Settings() []string {
	return []string{"fsync", "full_page_writes", "synchronous_commit", "wal_log_hints", "data_checksums", "recovery_min_apply_delay", "archive_mode"}
}

// JudgeServer judges the settings and slots of a server; it tells nothing where the server does not answer.
func JudgeServer(f Facts, rewind bool, idle []string) []Finding {
	var out []Finding
	s := f.Settings
	if len(s) == 0 {
		return nil
	}
	set := func(name string) string {
		return "ALTER SYSTEM RESET " + name + "; or remove it: haven show-config, PATCH /config"
	}
	for _, name := range []string{"fsync", "full_page_writes"} {
		if s[name] == "off" {
			out = append(out, Finding{"unsafe_setting", Critical, f.Name, name + " is off: a crash of the host can ruin the database beyond repair", set(name)})
		}
	}
	if s["synchronous_commit"] == "off" || s["synchronous_commit"] == "local" {
		out = append(out, Finding{"unsafe_setting", Warning, f.Name, "synchronous_commit is " + s["synchronous_commit"] + ": commits are acknowledged without a standby having them, whatever synchronous_mode says", set("synchronous_commit")})
	}
	if rewind && s["wal_log_hints"] == "off" && s["data_checksums"] == "off" {
		out = append(out, Finding{"no_rewind", Warning, f.Name, "neither wal_log_hints nor data checksums are on: a former primary cannot be rewound, and is copied anew",
			"set postgresql.parameters.wal_log_hints: on (PATCH /config) and restart PostgreSQL, or run pg_checksums --enable on each stopped member"})
	}
	for _, slot := range idle {
		out = append(out, Finding{"idle_slot", Warning, f.Name, "the slot " + slot + " is not used and holds back WAL", "start what uses it; if nobody needs it: psql -c \"SELECT pg_drop_replication_slot('" + slot + "')\""})
	}
	return out
}
