package schema

import "testing"

func TestTableIsWholeAndItsDefaultsAreValid(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Path] {
			t.Errorf("%s stands twice in the table", k.Path)
		}
		seen[k.Path] = true
		if k.Text == "" && !k.Unused && k.Absent == "" {
			t.Errorf("%s is not documented", k.Path)
		}
		for _, def := range []string{k.Def, k.Haven} {
			if def == "" {
				continue
			}
			if err := k.Check(def); err != nil {
				t.Errorf("default %q of %s: %v", def, k.Path, err)
			}
		}
	}
}

// Whoever is told that a value is refused must be told one that is not.
func TestKeysWithoutEffectHaveAWayOut(t *testing.T) {
	for _, k := range Keys() {
		if !k.Inert.Is() {
			if len(k.Inert.Fits)+len(k.Inert.Refused) > 0 {
				t.Errorf("%s has an effect, and yet values that have none", k.Path)
			}
			continue
		}
		if len(k.Inert.Refused) > 0 && !k.fits(k.harmless()) {
			t.Errorf("%s: %q is to be written, and would be a fault itself", k.Path, k.harmless())
		}
		for _, v := range append(k.Inert.Fits, k.harmless()) {
			if err := k.Check(v); v != "" && err != nil {
				t.Errorf("%s: %q is to be written: %v", k.Path, v, err)
			}
		}
	}
}

func TestVariablesAllBelongToKeys(t *testing.T) {
	s := New()
	for name, path := range Variables() {
		if k := s.Nearest(path); s.At(path) == nil && k.Kind != Settings {
			t.Errorf("%s belongs to %s, which is no key", name, path)
		}
	}
}

func TestMaskInside(t *testing.T) {
	for in, want := range map[string]string{
		"host=a password=s3cret user=b":  "host=a password=****** user=b",
		"http://u:s3cret@10.0.1.10:2379": "http://u:******@10.0.1.10:2379",
		"http://10.0.1.10:2379":          "http://10.0.1.10:2379",
		"cp /a@b:c /d":                   "cp /a@b:c /d",
	} {
		if got := MaskInside(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	table := New()
	for path, want := range map[string]bool{"etcd.password": true, "postgresql.parameters.ssl_passphrase_command": true,
		"postgresql.parameters.password_encryption": false, "etcd.password_file": false, "etcd.username": false} {
		if IsSecret(path, table) != want {
			t.Errorf("%s: secret is not %v", path, want)
		}
	}
}
