package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestConfirmation(t *testing.T) {
	for _, tt := range []struct {
		name, dynamic, candidate, answers string
		agreed                            bool
		asked                             string
	}{
		{"best candidate by default", `{}`, "", "\ny\n", true, "Candidate [db2 db3] [db2]: "},
		{"another candidate", `{}`, "", "db3\nyes\n", true, "Let db3 take over in cluster shop? [y/N]: "},
		{"not a candidate", `{}`, "", "db1\ny\n", false, ""},
		{"no is the default", `{}`, "db2", "\n", false, "Let db2 take over in cluster shop? [y/N]: "},
		{"the end of input is no", `{}`, "db2", "", false, ""},
		{"loss is asked about", `{"synchronous_mode": true}`, "db2", "y\n", true, "db2 is not synchronous, acknowledged commits may be lost."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var talk bytes.Buffer
			ch := &change{action: "failover", candidate: tt.candidate, c: &console{in: strings.NewReader(tt.answers), err: &talk, inTTY: true}}
			p := pictureOf(t, tt.dynamic, nil)
			err := ch.confirm(t.Context(), p, ch.plan(p))
			var f *Failure
			if (err == nil) != tt.agreed || err != nil && (!errors.As(err, &f) || f.Code != ExitRefused) {
				t.Errorf("%v, want agreement %v", err, tt.agreed)
			}
			if !strings.Contains(talk.String(), tt.asked) {
				t.Errorf("it did not ask %q:\n%s", tt.asked, talk.String())
			}
		})
	}
}
