package conf

import "testing"

func TestTextOfFiles(t *testing.T) {
	for got, want := range map[string]string{
		Line("archive_command", "cp '%p' \"C:\\x\"\n"):                                             "archive_command = 'cp ''%p'' \"C:\\\\x\"\\n'\n",
		WithoutRecovery("# hand\nprimary_conninfo = 'a'\nRESTORE_COMMAND='b'\nwork_mem = '1MB'\n"): "# hand\nwork_mem = '1MB'\n",
		WithSetting("a = '1'\nb = '2'\n", "a", "3"):                                                "a = '3'\nb = '2'\n",
		WithSetting("ab = '1'\n", "a", ""):                                                         "ab = '1'\na = ''\n",
	} {
		if got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
