package pgwire

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

const hbaFile = `
# comment
local   all             postgres                                peer
local   all             all                                     md5   # more
host    replication     all             all                     reject
host    "all"           carl            0.0.0.0/0               trust
host    sameuser        all             10.0.0.0/8              scram-sha-256
host    a, b ,"c d"     x,y             192.168.1.0  255.255.255.0 password
hostssl all             certain         all                     cert
hostssl all             both            ::/0                    scram-sha-256 clientcert=verify-full
hostssl all             some            ::/0                    scram-sha-256 clientcert=verify-ca
hostnossl all           all             172.16.0.0/12           reject
host    all             all             \
        172.16.0.0/12   md5
hostnogssenc all        "quo""ted"      ::1                     ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust
`

func TestRules(t *testing.T) {
	rules, err := ParseRules("pg_hba.conf", hbaFile)
	pgtest.Must(t, err)
	ip := netip.MustParseAddr
	for _, c := range []struct {
		c    candidate
		want Method
	}{
		{candidate{user: "postgres", database: "x", local: true}, Peer},
		{candidate{user: "u", database: "x", local: true}, MD5},
		{candidate{user: "u", replication: true, address: ip("10.0.0.1")}, Reject},
		{candidate{user: "carl", database: "all", address: ip("8.8.8.8")}, Trust},
		{candidate{user: "carl", database: "other", address: ip("8.8.8.8")}, ""},
		{candidate{user: "u", database: "u", address: ip("10.1.2.3")}, SCRAM},
		{candidate{user: "u", database: "v", address: ip("10.1.2.3")}, ""},
		{candidate{user: "u", database: "u", address: ip("11.1.2.3")}, ""},
		{candidate{user: "y", database: "c d", address: ip("192.168.1.9")}, Password},
		{candidate{user: "y", database: "b", address: ip("192.168.2.9")}, ""},
		{candidate{user: "certain", database: "x", address: ip("8.8.8.8"), encrypted: true}, Cert},
		{candidate{user: "certain", database: "x", address: ip("8.8.8.8")}, ""},
		{candidate{user: "both", database: "x", address: ip("::5"), encrypted: true, certified: true, certificate: "both"}, SCRAM},
		{candidate{user: "both", database: "x", address: ip("::5"), encrypted: true, certified: true, certificate: "other"}, Reject},
		{candidate{user: "both", database: "x", address: ip("::5"), encrypted: true}, Reject},
		{candidate{user: "some", database: "x", address: ip("::5"), encrypted: true, certified: true, certificate: "other"}, SCRAM},
		{candidate{user: "some", database: "x", address: ip("::5"), encrypted: true}, Reject},
		{candidate{user: "u", database: "x", address: ip("172.20.0.1")}, Reject},
		{candidate{user: "u", database: "x", address: ip("172.20.0.1"), encrypted: true}, MD5},
		{candidate{user: "quoted", database: "x", address: ip("::1")}, Trust},
		{candidate{user: "u", database: "x"}, ""},
	} {
		if got, _ := rules.match(c.c); got != c.want {
			t.Errorf("%+v: %q, want %q", c.c, got, c.want)
		}
	}
}

func TestFaultyRules(t *testing.T) {
	_, err := ParseRules("hba", strings.Join([]string{
		"host all all 10.0.0.0/8 md5", "hosts all all all md5", "host all all all", "local all all", "host all all db.example md5",
		"host all all 10.0.0.0/33 md5", "host all all 10.0.0.1 md5", "host all all 10.0.0.1 255.0.255.0 md5", "host all all 10.0.0.1 ffff:: md5",
		"host all +staff all md5", "host samerole all all md5", "host all @file all md5", "host all /^x all md5", "host all all all gss",
		"host all all all peer", "local all all cert", "host all all all cert", `host "all all all md5`, "host all all all md5 map=x",
		"host all all all md5 clientcert=verify-ca", "hostssl all all all md5 clientcert=1", "host all all samenet md5", "host all all 10.0.0.1,10.0.0.2 md5",
		"host,hostssl all all all md5", "host all all 10.0.0.1 255.0.0.0,255.255.0.0 md5", "host all all all reject,trust",
		"hostssl all all all md5,clientcert=verify-full", "hostssl all all all md5 clientcert=verify-ca,map=x",
		"host all all all md5 \\",
	}, "\n"))
	if err == nil {
		t.Fatal("no faults")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 27 || !strings.HasPrefix(lines[0], "hba:2: ") || !strings.HasPrefix(lines[26], "hba:28: ") {
		t.Errorf("%d faults:\n%v", len(lines), err)
	}
}

func TestClientsByRules(t *testing.T) {
	rules, err := ParseRules("hba", "host all u 127.0.0.1/32 trust\nhost all v all reject")
	pgtest.Must(t, err)
	auth, err := NewAuthenticator(AuthOptions{Rules: rules})
	pgtest.Must(t, err)
	for user, told := range map[string]string{
		"u": "", "v": `the HBA file rejects host "127.0.0.1", user "v", database "v", no encryption`,
		"w": `no line of the HBA file is for host "127.0.0.1", user "w", database "w", no encryption`,
	} {
		near, done := accepting(t, AcceptOptions{Auth: auth})
		write(t, near, opening(Version30, "user", user))
		got := <-done
		var r *Refused
		if told == "" && got.err != nil || told != "" && (!errors.As(got.err, &r) || r.Told.Message != told) {
			t.Errorf("%s: %v", user, got.err)
		}
	}
}

func TestUserFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "userlist.txt")
	put := func(text string) { pgtest.Must(t, os.WriteFile(path, []byte(text), 0o600)) }
	put("; comment\n\n\"a\" \"one\" \"further\" fields\r\n\t\"b \"\"c\"\"\"\t\"t\"\"wo\"\n\"d\" \"\"\n\"a\" \"last\"")
	f, err := OpenUserFile(path)
	pgtest.Must(t, err)
	ctx := context.Background()
	for user, password := range map[string]string{"a": "last", `b "c"`: `t"wo`} {
		if s, err := f.Secret(ctx, user); err != nil || !s.matches(user, password) {
			t.Errorf("%s: %v, %v", user, s, err)
		}
	}
	if s, err := f.Secret(ctx, "d"); err != nil || s.kind() != "none" {
		t.Errorf("a user without password: %v, %v", s, err)
	}
	if _, err := f.Secret(ctx, "e"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("%v", err)
	}
	put("\"a\" \"new\"\nb \"c\"\n\"b\"\n\"\" \"x\"\n\"c\" \"d")
	if err := f.Reload(); err == nil || len(strings.Split(err.Error(), "\n")) != 4 || !strings.Contains(err.Error(), "userlist.txt:5: ") {
		t.Errorf("faults: %v", err)
	}
	if s, _ := f.Secret(ctx, "a"); !s.matches("a", "last") {
		t.Error("a faulty file has changed something")
	}
	put(`"a" "new"`)
	pgtest.Must(t, f.Reload())
	if s, _ := f.Secret(ctx, "a"); !s.matches("a", "new") {
		t.Error("a good file has changed nothing")
	}
	if _, err := OpenUserFile(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
