package scenarios

import (
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// base is the file of every member, as a user of Patroni's has it; $NAMES are filled in.
const base = `
scope: $SELF.scope
name: $SELF
restapi: {listen: "$SELF.api", connect_address: "$SELF.api"}
etcd3: {hosts: "$ETCD", protocol: $SCHEME}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: 50, wal_keep_size: 64MB}
  initdb: [{encoding: UTF8}, data-checksums]
postgresql:
  listen: "$SELF.sql"
  connect_address: "$SELF.sql"
  data_dir: $DIR/$SELF
  bin_dir: $BIN
  pgpass: $DIR/$SELF.pgpass
  authentication:
    superuser: {username: postgres, password: one-two-three}
    replication: {username: replicator, password: four-five-six}
  parameters: {unix_socket_directories: "", fsync: "off"}
`

// plain and encrypted are what the two runs add to it.
const (
	plain = `
postgresql:
  pg_hba:
    - host replication replicator 127.0.0.1/32 md5
    - host all all 127.0.0.1/32 md5
`
	encrypted = `
restapi: {certfile: $CERTS/node.crt, keyfile: $CERTS/node.key, cafile: $CERTS/ca.crt, verify_client: required}
ctl: {cacert: $CERTS/ca.crt, certfile: $CERTS/node.crt, keyfile: $CERTS/node.key}
etcd3: {cacert: $CERTS/ca.crt, cert: $CERTS/node.crt, key: $CERTS/node.key}
postgresql:
  authentication:
    superuser: {sslmode: verify-ca, sslrootcert: $CERTS/ca.crt, sslcert: $CERTS/postgres.crt, sslkey: $CERTS/postgres.key}
    replication: {sslmode: verify-ca, sslrootcert: $CERTS/ca.crt, sslcert: $CERTS/replicator.crt, sslkey: $CERTS/replicator.key}
  parameters: {ssl: "on", ssl_ca_file: $CERTS/ca.crt, ssl_cert_file: $CERTS/node.crt, ssl_key_file: $CERTS/node.key}
  pg_hba:
    - hostssl replication replicator 127.0.0.1/32 cert
    - hostssl all all 127.0.0.1/32 cert
`
)

// configure writes a member's file.
func (w *world) configure(m *member) {
	w.t.Helper()
	w.values["SELF"], w.values["ETCD"] = m.name, w.etcd.address
	for k, v := range w.values {
		if owner, what, found := cutLast(k, "."); found && owner == m.name {
			w.values["SELF."+what] = v
		}
	}
	doc := map[string]any{}
	merge(doc, w.yaml(base))
	if w.site.tls == nil {
		merge(doc, w.yaml(plain))
	} else {
		merge(doc, w.yaml(encrypted))
	}
	merge(doc, map[string]any{"bootstrap": map[string]any{"dcs": m.cluster.dcs}})
	merge(doc, m.config)
	text, err := yaml.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(m.name+".yml", string(text), 0o600)
}

// yaml reads a document with $NAMES.
func (w *world) yaml(text string) map[string]any {
	w.t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(w.fill(text)), &out); err != nil {
		w.t.Fatalf("%v in:\n%s", err, text)
	}
	return out
}

// merge puts the keys of more over those of into; null removes one.
func merge(into, more map[string]any) {
	for k, v := range more {
		child, isMap := v.(map[string]any)
		if v == nil {
			delete(into, k)
			continue
		}
		if !isMap {
			into[k] = v
			continue
		}
		below, ok := into[k].(map[string]any)
		if !ok {
			below = map[string]any{}
			into[k] = below
		}
		merge(below, child)
	}
}

// write writes a file of the story's directory.
func (w *world) write(name, text string, mode os.FileMode) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		w.t.Fatal(err)
	}
	give(w.t, w.account(), path)
}
