package config

import (
	"net"
	"os"
	"strconv"

	"github.com/havenha/haven/internal/config/notation"
)

// buildClient makes the Node of a command that only talks to etcd and to REST APIs: the rest of the file is read where
// that can be done, and none of it is a fault, since the command neither runs it nor may be allowed to see its secrets.
func (l *loader) buildClient() *Node {
	n := &Node{Format: l.format, File: l.src.Path, src: l.src}
	if l.format == Haven {
		l.checkFormat()
	}
	l.identity(n)
	l.without(func() { l.haven(n); l.postgresSection(n) })
	l.etcdSection(n)
	l.inheritedFiles()
	l.without(func() { l.restapi(n); l.connectAddresses(n) })
	if n.RESTAPI.ConnectAddress == "" {
		if _, port, err := notation.SplitAddress(n.RESTAPI.Listen); err == nil {
			n.RESTAPI.ConnectAddress = net.JoinHostPort("localhost", strconv.Itoa(port))
		}
	}
	l.warning(func() { l.clientLogin(n) })
	l.without(func() { l.bootstrap(n); l.proxySection(n); l.logSection(n); l.watchdog(n); n.Tags = l.tags() })
	n.doc, n.Origins = l.doc, origins(l.doc)
	return n
}

// inheritedFiles reports files of haven.tls that may not be read, where etcd is reached with them.
func (l *loader) inheritedFiles() {
	for _, f := range [][2]string{{"etcd.cacert", "cafile"}, {"etcd.cert", "certfile"}, {"etcd.key", "keyfile"}} {
		if v := l.given(f[0]); v != nil && v.At.Note == "haven.tls" {
			l.existing("haven.tls." + f[1])
		}
	}
}

// clientLogin settles how REST APIs are asked. Reading needs no login, so what may not be read is left out.
func (l *loader) clientLogin(n *Node) {
	l.ctl(n)
	if l.given("ctl.authentication.username") == nil {
		l.secret("restapi.authentication.password") // for its fault: the value has been read
	}
	key := n.CTL.KeyFile
	if key == "" {
		return
	}
	if f, err := os.Open(key); err == nil {
		f.Close()
		return
	}
	n.CTL.CertFile, n.CTL.KeyFile = "", ""
	l.report.warnf(l.doc.Nearest("ctl.keyfile"), "%s may not be read by this user: REST APIs are asked without a certificate", key)
}

// without runs steps whose faults are not reported.
func (l *loader) without(steps func()) {
	kept := l.report
	l.report = &Report{}
	steps()
	l.report = kept
}

// warning runs steps whose faults are warnings.
func (l *loader) warning(steps func()) {
	kept := l.report
	l.report = &Report{}
	steps()
	for _, f := range l.report.Faults {
		f.Severity = Warning
		kept.Faults = append(kept.Faults, f)
	}
	l.report = kept
}
