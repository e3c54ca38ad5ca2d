package schema

import (
	"fmt"
	"strings"
)

// Variables maps each variable that Patroni reads to the path of its key.
func Variables() map[string]string {
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
