package sockets

import "testing"

func TestProcAddress(t *testing.T) {
	for in, want := range map[string]string{"0100007F:1538": "127.0.0.1:5432", "00000000:1F48": "0.0.0.0:8008",
		"00000000000000000000000001000000:0050": "[::1]:80", "0000000000000000FFFF00000100007F:0050": "127.0.0.1:80"} {
		if got, ok := procAddress(in); !ok || got.String() != want {
			t.Errorf("%s: %s %v, want %s", in, got, ok, want)
		}
	}
	if _, ok := procAddress("nonsense"); ok {
		t.Error("nonsense is an address")
	}
}
