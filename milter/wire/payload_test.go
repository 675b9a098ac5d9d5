package wire

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseConnect(t *testing.T) {
	addr := netip.MustParseAddr
	tests := []struct {
		payload string
		want    Peer
	}{
		{"mx.example.org\x004\x04\x00192.0.2.7\x00", Peer{"mx.example.org", '4', 1024, addr("192.0.2.7")}},
		{"[2001:db8::1]\x006\xff\xff2001:db8::1\x00", Peer{"[2001:db8::1]", '6', 65535, addr("2001:db8::1")}},
		{"h\x006\x00\x19IPv6:2001:db8::1\x00", Peer{"h", '6', 25, addr("2001:db8::1")}},
		{"h\x006\x00\x19ipv6:2001:db8::1\x00", Peer{"h", '6', 25, addr("2001:db8::1")}},
		{"h\x006\x00\x19::ffff:192.0.2.7\x00", Peer{"h", '6', 25, addr("192.0.2.7")}},
		{"h\x004\x00\x00unknown\x00", Peer{Name: "h", Family: '4'}},
		{"h\x004\x00\x00\x00", Peer{Name: "h", Family: '4'}},
		{"unknown\x00U", Peer{Name: "unknown", Family: 'U'}},
		{"\x00U", Peer{Family: 'U'}},
		{"localhost\x00L\x00\x00/run/x\x00", Peer{Name: "localhost", Family: 'L'}},
	}
	for _, tt := range tests {
		got, err := ParseConnect([]byte(tt.payload))
		if err != nil || got != tt.want {
			t.Errorf("ParseConnect(%q) = %+v, %v, want %+v", tt.payload, got, err, tt.want)
		}
	}
}

func TestArgs(t *testing.T) {
	got := Args([]byte("<a@b>\x00SIZE=1\x00BODY=8BITMIME\x00"))
	if want := []string{"<a@b>", "SIZE=1", "BODY=8BITMIME"}; !slices.Equal(got, want) {
		t.Errorf("Args = %q", got)
	}
	if got := Args([]byte("\x00\x00")); len(got) != 2 || got[0] != "" {
		t.Errorf("Args of empty strings = %q", got)
	}
}

func TestMacros(t *testing.T) {
	steps := []struct {
		what string
		set  string // a macro payload, or
		cmd  Command
		get  map[string]string
	}{
		{"connect", "Cj\x00mx.example\x00{daemon_name}\x00ORIGINATING\x00", 0, nil},
		{"", "", Connect, map[string]string{"j": "mx.example", "{j}": "mx.example", "daemon_name": "ORIGINATING", "i": ""}},
		{"helo with TLS", "H{tls_version}\x00TLSv1.3\x00", 0, nil},
		{"", "", Helo, map[string]string{"{tls_version}": "TLSv1.3"}},
		{"helo without macros", "", Helo, map[string]string{"{tls_version}": "", "j": "mx.example"}},
		{"mail", "M{auth_authen}\x00alice\x00", 0, nil},
		{"", "", Mail, map[string]string{"{auth_authen}": "alice"}},
		{"rcpt", "Ri\x00QUEUEID1\x00", 0, nil},
		{"", "", Rcpt, map[string]string{"i": "QUEUEID1", "{auth_authen}": "alice"}},
		{"rcpt without", "", Rcpt, map[string]string{"i": ""}},
		{"header", "Li\x00QUEUEID2\x00", 0, nil},
		{"", "", Header, map[string]string{"i": "QUEUEID2", "{auth_authen}": "alice"}},
		{"second mail without macros", "", Mail, map[string]string{"{auth_authen}": "", "i": "", "j": "mx.example"}},
		{"mail again", "M{auth_authen}\x00bob\x00", 0, nil},
		{"macros for another command", "Ri\x00X\x00", 0, nil},
		{"mail whose macros came too early", "", Mail, map[string]string{"{auth_authen}": "", "i": ""}},
		{"mail", "M{auth_authen}\x00carol\x00", 0, nil},
		{"", "", Mail, map[string]string{"{auth_authen}": "carol"}},
		{"abort", "", Abort, map[string]string{"{auth_authen}": "", "daemon_name": "ORIGINATING"}},
	}
	var m Macros
	for i, s := range steps {
		if s.set != "" {
			if err := checkMacros([]byte(s.set)); err != nil {
				t.Fatal(err)
			}
			if err := m.set([]byte(s.set)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		m.enter(s.cmd)
		for name, want := range s.get {
			if got := m.Get(name); got != want {
				t.Errorf("step %d (%s): %s = %q, want %q", i, s.what, name, got, want)
			}
		}
	}
	if m.At(Connect, "j") != "mx.example" || m.At(Helo, "j") != "" || m.At('?', "j") != "" {
		t.Error("At looks beyond its stage")
	}
}

// The macros of all stages are bounded together. Large ones take no memory any more when
// they are dropped or replaced.
func TestMacrosAreBounded(t *testing.T) {
	var m Macros
	large := "i\x00" + strings.Repeat("1", 12<<10) + "\x00"
	for i, stage := range stages {
		if err := m.set([]byte(string(stage) + large)); (err == nil) != (i < MaxMacros/len(large)) {
			t.Errorf("large macros of stage %d: %v", i, err)
		}
	}
	for round := range 3 {
		for _, stage := range stages {
			for _, pairs := range []string{large, "i\x001\x00"} {
				if err := m.set([]byte(string(stage) + pairs)); err != nil {
					t.Fatalf("round %d, stage %c: %v", round, stage, err)
				}
			}
		}
		m.enter(Abort)
	}
	room := 0
	for _, macros := range m.byStage {
		room += cap(macros)
	}
	if room > len(stages)*usualMacros {
		t.Errorf("small macros keep %d octets", room)
	}
}

func FuzzMacros(f *testing.F) {
	f.Add("Mi\x001\x00{auth_authen}\x00\x00", "i")
	f.Add("C", "j")
	f.Add("M\x00\x00\x00\x00", "")
	f.Add("E{}\x00x\x00{\x00y\x00", "{}")
	f.Fuzz(func(t *testing.T, payload, name string) {
		var m Macros
		if payload == "" || checkMacros([]byte(payload)) != nil || m.set([]byte(payload)) != nil {
			return
		}
		value, ok := lookup([]byte(payload[1:]), name)
		if m.Get(name) != value {
			t.Fatalf("Get(%q) = %q, want %q", name, m.Get(name), value)
		}
		if ok && !strings.Contains(payload, value+"\x00") {
			t.Fatalf("value %q is not in %q", value, payload)
		}
		m.enter(Command(payload[0]))
		m.enter(Mail)
		m.enter(Abort)
		for _, stage := range "MRTLNBE" {
			if got := m.At(Command(stage), name); got != "" {
				t.Fatalf("%q of stage %c outlives the message", got, stage)
			}
		}
	})
}

func FuzzConnect(f *testing.F) {
	f.Add([]byte("h\x004\x00\x19192.0.2.1\x00"))
	f.Add([]byte("h\x006\x00\x19IPv6:::1%eth0\x00"))
	f.Add([]byte("h\x00U"))
	f.Add([]byte("h\x00L\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := ParseConnect(payload)
		if err != nil {
			return
		}
		if strings.Contains(p.Name, "\x00") || p.Addr.Is4In6() || (p.Addr.IsValid() && p.Family != '4' && p.Family != '6') {
			t.Fatalf("%q gives %+v", payload, p)
		}
	})
}
