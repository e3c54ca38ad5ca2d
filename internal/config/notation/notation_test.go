package notation

import (
	"fmt"
	"strings"
	"testing"
)

// shown is a value, or "error".
func shown(v any, err error) string {
	if err != nil {
		return "error"
	}
	return fmt.Sprint(v)
}

func TestValuesAsTheyAreWritten(t *testing.T) {
	host := func(s string) (string, error) {
		h, p, err := SplitAddress(s)
		return fmt.Sprint(h, " ", p), err
	}
	listen := func(s string) (string, error) {
		h, p, err := SplitListen(s)
		return fmt.Sprint(h, p), err
	}
	sockets := func(s string) (string, error) {
		h, p, err := SplitSockets(s)
		return fmt.Sprint(h, p), err
	}
	duration := func(s string) string { return shown(ParseDuration(s)) }
	size := func(s string) string { return shown(ParseSize(s)) }
	rate := func(s string) string { return shown(ParseRate(s)) }
	address := func(s string) string { return shown(host(s)) }
	listening := func(s string) string { return shown(listen(s)) }
	opening := func(s string) string { return shown(sockets(s)) }
	mode := func(s string) string { return shown(ParseFileMode(s)) }
	network := func(s string) string { return shown(ParseNetwork(s)) }
	for _, c := range []struct {
		read     func(string) string
		in, want string
	}{
		{duration, "5", "5s"}, {duration, "250ms", "250ms"}, {duration, "2min", "2m0s"}, {duration, "-1", "-1s"}, {duration, "off", "0s"},
		{duration, "5 parsecs", "error"}, {duration, "NaN", "error"}, {duration, "999999d", "error"},
		{size, "16MB", "16777216"}, {size, "1.5kB", "1536"}, {size, "8 GB", "8589934592"}, {size, "much", "error"}, {size, "9999999TB", "error"},
		{rate, "200 per s", "200"}, {rate, "7/s", "7"}, {rate, "0", "error"},
		{address, "*:8008", "* 8008"}, {address, "[::1]:80", "::1 80"}, {address, "::1:80", "error"}, {address, "db1", "error"},
		{address, "db1:70000", "error"}, {address, "300.1.1.1:80", "error"}, {address, "a b:80", "error"},
		{listening, "localhost,10.0.1.10:5432", "[localhost 10.0.1.10] 5432"}, {listening, "[::1]", "[::1] 5432"}, {listening, "*:x", "error"},
		{opening, "*, /run/haven:6432", "[* /run/haven] 6432"}, {opening, "[::1],10.0.1.10:6432", "[::1 10.0.1.10] 6432"}, {opening, ":6432", "[*] 6432"},
		{opening, "/run/haven", "error"}, {opening, "run/haven:6432", "error"}, {opening, "/" + strings.Repeat("x", 92) + ":6432", "error"},
		{mode, "0770", "504"}, {mode, "777", "511"}, {mode, "0", "error"}, {mode, "0888", "error"}, {mode, "01777", "error"},
		{network, "10.1.2.3/8", "[10.0.0.0/8]"}, {network, "10.1.2.3", "[10.1.2.3/32]"}, {network, "home", "error"},
	} {
		if got := c.read(c.in); got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
}
