package config

import (
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/tree"
)

// LogRest stands in Log.Loggers for what is logged by no part in particular.
const LogRest = ""

// logParts are the parts of the program that log under a name, which stands in their lines as component.
func logParts() []string {
	return []string{"agent", "etcd", "guard", "postgresql", "proxy", "restapi"}
}

// partsCalled are the parts that a name in log.loggers means: a part's own, one of Patroni's modules that does what a part
// does, or the name of the program, which means all of it; none: it means no part.
func partsCalled(name string) []string {
	switch name {
	case "haven", "patroni":
		return append(logParts(), LogRest)
	case "patroni.ha":
		return []string{"agent"}
	case "patroni.dcs", "patroni.dcs.etcd", "patroni.dcs.etcd3":
		return []string{"etcd"}
	case "patroni.watchdog":
		return []string{"guard"}
	case "patroni.postgresql":
		return []string{"postgresql"}
	case "patroni.api":
		return []string{"restapi"}
	}
	if slices.Contains(logParts(), name) {
		return []string{name}
	}
	return nil
}

// loggers reads log.loggers: the severity of each part that it names. A part's own entry holds against one for the program.
func (l *loader) loggers() map[string]string {
	section := l.given("log.loggers")
	if section == nil || section.Shape != tree.Mapping {
		return nil
	}
	out, own := map[string]string{}, map[string]bool{}
	for _, f := range section.Fields {
		parts, level := partsCalled(f.Name), f.Value.Text
		accepted := l.schema.At("log.level").Key.Accept
		switch {
		case f.Value.Shape != tree.Scalar:
			continue // reported by the walker
		case !slices.Contains(accepted, strings.ToLower(level)):
			l.report.errorf(f.At, "`log.loggers.%s` is `%s`, which is no severity: write one of %s", f.Name, level, strings.Join(accepted, ", "))
		case len(parts) == 0:
			l.report.warnf(f.At, "`log.loggers.%s` has no effect: no part of haven is called so; its parts are %s", f.Name, strings.Join(logParts(), ", "))
		}
		for _, part := range parts {
			if len(parts) == 1 || !own[part] {
				out[part] = strings.ToUpper(level)
			}
			own[part] = own[part] || len(parts) == 1
		}
	}
	return out
}
