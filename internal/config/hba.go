package config

import (
	"net/netip"
	"slices"
	"strings"
)

// DefaultHBA is the pg_hba.conf of a cluster whose configuration has none (PostgreSQL manual, 21.1): the superuser's
// operating system account needs no password at the socket where the server runs under that very name, everybody else
// does; replication and the rewind role from every member's address; and all others from the networks that this host
// is in. With haven.tls, connections from other hosts must be encrypted. members are hosts of members beside those of
// etcd.members and this node.
func (n *Node) DefaultHBA(members ...string) []string {
	p := n.Postgres
	if p == nil {
		return nil
	}
	host := "host"
	if n.Haven.TLS.On() {
		host = "hostssl"
	}
	replication, rewind := quoteRole(p.Replication.Username), quoteRole(p.Rewind.Username)
	var out []string
	if p.RunAs != "" && p.RunAs == p.Superuser.Username {
		out = append(out, "local all "+quoteRole(p.Superuser.Username)+" peer")
	}
	out = append(out, "local all all scram-sha-256", "local replication "+replication+" scram-sha-256")
	for _, loopback := range []string{"127.0.0.1/32", "::1/128"} {
		out = append(out, "host all all "+loopback+" scram-sha-256", "host replication "+replication+" "+loopback+" scram-sha-256")
	}
	for _, address := range n.memberAddresses(members) {
		out = append(out, host+" replication "+replication+" "+address+" scram-sha-256", host+" all "+rewind+" "+address+" scram-sha-256")
	}
	return append(out, host+" all all samenet scram-sha-256")
}

// memberAddresses are the addresses, in pg_hba's notation, that members connect from. A name is kept and samenet added
// to it, since PostgreSQL checks a name by a reverse lookup, which containers often fail. samenet alone stands for
// members that are not known yet.
func (n *Node) memberAddresses(more []string) []string {
	hosts := []string{hostOf(n.Postgres.ConnectAddress)}
	for _, m := range n.Etcd.Members {
		hosts = append(hosts, hostOf(m.Client))
	}
	var out []string
	near := len(n.Etcd.Members) == 0
	for _, host := range append(hosts, more...) {
		address := strings.Trim(host, "[]")
		if ip, err := netip.ParseAddr(address); err == nil {
			if ip.IsLoopback() || ip.IsUnspecified() {
				continue
			}
			address = netip.PrefixFrom(ip.WithZone(""), ip.BitLen()).String()
		} else if address == "" || address == "localhost" || address == "*" {
			continue
		} else {
			near = true
		}
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	if near {
		out = append(out, "samenet")
	}
	return out
}

// quoteRole quotes a role's name for pg_hba.conf, where all, replication and + have meanings of their own.
func quoteRole(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
