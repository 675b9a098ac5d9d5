package sql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadOptions(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "conf.d")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "a.cnf"), "[client]\nport = 3307\n")
	write(t, filepath.Join(folder, "b.txt"), "[client]\nport = 1\n")
	path := write(t, filepath.Join(dir, "my.cnf"), "# c\n; c\nuser = nobody\n[client]\nuser = \"an n\" \nssl_ca=/ca # why\nssl\n[mysqld]\nuser = mysql\n[mine]\npassword = 'a\\sb\\\\'\n!includedir "+folder+"\n!include "+filepath.Join(dir, "my.cnf")+"\n")
	o, err := readOptions(path, "mine")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"user": "an n", "ssl-ca": "/ca", "password": `a b\`, "port": "3307"} {
		if got := o.or("", name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if !isOn(o.values, "ssl") || isOn(o.values, "ssl-verify-server-cert") || o.or("own", "user") != "own" || len(o.files) != 2 {
		t.Errorf("%+v", o)
	}
	for _, bad := range []string{"!include /nowhere/x\n", "!includedir /nowhere\n", strings.Repeat("x", maxOptionLine+1)} {
		if _, err := readOptions(write(t, filepath.Join(dir, "bad.cnf"), bad), "client"); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
	if _, err := readOptions("", ""); err != nil {
		t.Errorf("no file and no group: %v", err)
	}
}

func FuzzOptions(f *testing.F) {
	for _, text := range []string{"[client]\nuser=a\n", "[client\n=", "[]\n'", "[client]\na='\nb=\"\n", "[client]\n\\\n#", "[client]\nx = y # z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "!include") {
			return // names files of this machine
		}
		o := &options{values: map[string]string{}, groups: []string{"client"}}
		if err := o.parse("fuzz", strings.NewReader(text)); err == nil && len(o.values) > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %d options", text, len(o.values))
		}
	})
}
