package config

import (
	"maps"
	"strings"
	"testing"
)

func TestLoggersNameParts(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"{}": {},
		"{etcd: warn, patroni.postgresql: DEBUG}": {"etcd": "WARN", "postgresql": "DEBUG"},
		"{agent: DEBUG, patroni: error}": {"agent": "DEBUG", "etcd": "ERROR", "guard": "ERROR", "postgresql": "ERROR",
			"proxy": "ERROR", "restapi": "ERROR", LogRest: "ERROR"},
		"{haven: info, patroni.ha: warning, patroni.dcs.etcd3: debug, patroni.watchdog: debug, patroni.api: error}": {"agent": "WARNING", "etcd": "DEBUG",
			"guard": "DEBUG", "postgresql": "INFO", "proxy": "INFO", "restapi": "ERROR", LogRest: "INFO"},
	} {
		n, _ := mustLoad(t, host(write(t, databaseNode+"\nlog: {loggers: "+text+"}\n")))
		if !maps.Equal(n.Log.Loggers, want) {
			t.Errorf("%s is read as %v, want %v", text, n.Log.Loggers, want)
		}
	}
	_, r := Load(host(write(t, databaseNode+"\nlog: {loggers: {agent: loud}}\n")))
	if !strings.Contains(r.String(), "error: `log.loggers.agent` is `loud`, which is no severity: write one of debug, info, ") {
		t.Errorf("the report is\n%s", r.String())
	}
}
