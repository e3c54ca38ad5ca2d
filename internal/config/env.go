package config

import (
	"fmt"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// environment makes a document of the PATRONI_* variables, which are laid over the file.
func (l *loader) environment() *value {
	doc := &value{shape: mapping, at: place{note: "the environment"}}
	paths := variables()
	env := map[string]string{}
	for _, e := range l.src.Env {
		if name, v, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "PATRONI_") {
			env[name] = v
		}
	}
	var names []string
	for name := range env {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path, known := paths[name]
		switch {
		case name == "PATRONI_CONFIGURATION" || env[name] == "":
		case known:
			doc.set(path, l.fromVariable(name, path, env[name]))
		default:
			l.strangeVariable(doc, name, paths)
		}
	}
	return doc
}

// strangeVariable handles variables that no key belongs to: those of other stores are refused with their section.
func (l *loader) strangeVariable(doc *value, name string, known map[string]string) {
	for _, section := range []string{"consul", "zookeeper", "exhibitor", "kubernetes", "raft", "citus"} {
		if strings.HasPrefix(name, "PATRONI_"+strings.ToUpper(section)+"_") {
			doc.put(section, &value{shape: mapping, at: place{note: name}})
			return
		}
	}
	var candidates []string
	for k := range known {
		candidates = append(candidates, strings.ToLower(k))
	}
	sort.Strings(candidates)
	hint := didYouMean(strings.ToLower(name), candidates)
	if i := strings.IndexByte(hint, '`'); i >= 0 {
		hint = hint[:i] + strings.ToUpper(hint[i:])
	}
	l.report.warnf(place{note: name}, "this variable belongs to no key, so it has no effect%s", hint)
}

// fromVariable makes a value of a variable's text: a list or a mapping where the key takes one.
func (l *loader) fromVariable(name, path, s string) *value {
	at := place{note: name}
	plain := &value{shape: scalar, text: s, at: at}
	row := l.schema.at(path)
	if row == nil { // one of several settings, such as bin_name.pg_ctl
		return plain
	}
	trimmed := strings.TrimSpace(s)
	switch row.key.kind {
	case settings:
		if !strings.HasPrefix(trimmed, "{") {
			trimmed = "{" + trimmed + "}"
		}
	case texts, endpoints, free, networks:
		if !strings.HasPrefix(trimmed, "[") && !strings.HasPrefix(trimmed, "{") {
			return plain
		}
	default:
		return plain
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(trimmed), &doc); err != nil || len(doc.Content) == 0 {
		l.report.errorf(at, "this is neither a list with commas nor YAML: %v", err)
		return &value{at: at}
	}
	t := treeBuilder{report: l.report, open: map[*yaml.Node]bool{}}
	v := t.build(doc.Content[0])
	v.stamp(at)
	return v
}

func (v *value) stamp(at place) {
	v.at = at
	for _, item := range v.items {
		item.stamp(at)
	}
	for i := range v.fields {
		v.fields[i].at = at
		v.fields[i].value.stamp(at)
	}
}

// variables maps each variable that Patroni reads to the path of its key.
func variables() map[string]string {
	m := map[string]string{"PATRONI_LOGLEVEL": "log.level", "PATRONI_LOGFORMAT": "log.format", "PATRONI_LOG_DATEFMT": "log.dateformat"}
	add := func(variable, section string, names string) {
		for name := range strings.FieldsSeq(names) {
			m["PATRONI_"+variable+strings.ToUpper(name)] = section + name
		}
	}
	add("", "", "name namespace scope thread_pool_size thread_stack_size")
	add("LOG_", "log.", "type level traceback_level format dateformat static_fields max_queue_size dir mode file_size file_num loggers deduplicate_heartbeat_logs")
	add("RESTAPI_", "restapi.", "listen connect_address certfile keyfile keyfile_password cafile ciphers verify_client http_extra_headers https_extra_headers allowlist allowlist_include_members request_queue_size server_tokens")
	add("RESTAPI_", "restapi.authentication.", "username password")
	add("CTL_", "ctl.", "insecure cacert certfile keyfile keyfile_password")
	add("CTL_", "ctl.authentication.", "username password")
	add("POSTGRESQL_", "postgresql.", "listen connect_address proxy_address config_dir data_dir pgpass bin_dir")
	add("POSTGRESQL_BIN_", "postgresql.bin_name.", "pg_ctl initdb pg_controldata pg_basebackup postgres pg_isready pg_rewind")
	for _, role := range []string{"superuser", "replication", "rewind"} {
		add(strings.ToUpper(role)+"_", fmt.Sprintf("postgresql.authentication.%s.", role),
			"username password sslmode sslcert sslkey sslpassword sslrootcert sslcrl sslcrldir gssencmode channel_binding sslnegotiation")
	}
	for _, store := range []string{"etcd", "etcd3"} {
		add(strings.ToUpper(store)+"_", store+".", "host hosts port use_proxies protocol srv srv_suffix url proxy cacert cert key username password")
	}
	return m
}
