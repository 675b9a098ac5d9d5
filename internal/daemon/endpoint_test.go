package daemon

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	const queue = "/var/spool/postfix"
	long := "unix:/" + strings.Repeat("d", maxUnixPath)
	tests := []struct {
		in    string
		want  Endpoint
		spelt string // of want, when it is not in
		err   string // part of the error
	}{
		{in: "inet:127.0.0.1:10045", want: Endpoint{Network: "tcp", Address: "127.0.0.1:10045"}},
		{in: "inet:127.0.0.1:0", want: Endpoint{Network: "tcp", Address: "127.0.0.1:0"}},
		{in: "inet:127.0.0.1:010045", want: Endpoint{Network: "tcp", Address: "127.0.0.1:10045"}, spelt: "inet:127.0.0.1:10045"},
		{in: "inet:[::1]:10045", want: Endpoint{Network: "tcp", Address: "[::1]:10045"}},
		{in: "inet:[fe80::1%eth0]:25", want: Endpoint{Network: "tcp", Address: "[fe80::1%eth0]:25"}},
		{in: "inet:[127.0.0.1]:25", want: Endpoint{Network: "tcp", Address: "127.0.0.1:25"}, spelt: "inet:127.0.0.1:25"},
		{in: "inet:mail-1.example:smtp", want: Endpoint{Network: "tcp", Address: "mail-1.example:smtp"}},
		{in: "inet:127.0.0.1:10048=ownership", want: Endpoint{Network: "tcp", Address: "127.0.0.1:10048", Suffix: []string{"ownership"}}},
		{in: "inet:[::]:1=dnsbl,greylist", want: Endpoint{Network: "tcp", Address: "[::]:1", Suffix: []string{"dnsbl", "greylist"}}},
		{in: "unix:/run/postern/policyd.sock", want: Endpoint{Network: "unix", Address: "/run/postern/policyd.sock"}},
		{in: "unix:postern/policyd.sock", want: Endpoint{Network: "unix", Address: queue + "/postern/policyd.sock"}, spelt: "unix:" + queue + "/postern/policyd.sock"},
		{in: "unix:/run//a/../b:c=x", want: Endpoint{Network: "unix", Address: "/run/b:c", Suffix: []string{"x"}}, spelt: "unix:/run/b:c=x"},
		{in: "systemd", want: Endpoint{Network: "systemd"}},
		{in: "systemd=dnsbl", want: Endpoint{Network: "systemd", Suffix: []string{"dnsbl"}}},
		{in: "systemd:policy.socket=dnsbl", want: Endpoint{Network: "systemd", Address: "policy.socket", Suffix: []string{"dnsbl"}}},

		{in: "", err: spellings},
		{in: "127.0.0.1:10045", err: spellings},
		{in: "tcp:127.0.0.1:10045", err: spellings},
		{in: "INET:127.0.0.1:10045", err: spellings},
		{in: "inet", err: spellings},
		{in: "unix", err: spellings},
		{in: "systemdx", err: spellings},
		{in: "inet:", err: "host and port are both needed"},
		{in: "inet:10045", err: "host and port are both needed"},
		{in: "inet::10045", err: "host and port are both needed"},
		{in: "inet:*:10045", err: "inet:0.0.0.0:PORT"},
		{in: "inet:::1:10045", err: "needs brackets"},
		{in: "inet:[::1]10045", err: "host and port are both needed"},
		{in: "inet:127.0.0.1:65536", err: "0 to 65535"},
		{in: "inet:127.0.0.1:99999999999999999999", err: "0 to 65535"},
		{in: "inet:127.0.0.1:", err: "service name"},
		{in: "inet:127.0.0.1:-1x\n", err: "service name"},
		{in: "inet:a b:25", err: "neither an IP address nor a host name"},
		{in: "inet:[::1%\x00]:25", err: "neither an IP address nor a host name"},
		{in: "unix:", err: "needs a path"},
		{in: "unix:/run/postern/", err: "names a directory"},
		{in: "unix:/0/..", err: "names a directory"},
		{in: "unix:/run/a\x00b", err: "control character"},
		{in: "unix:/run/a=b/c", err: `a path cannot hold "="`},
		{in: long, err: "at most 107"},
		{in: "systemd:", err: "FileDescriptorName="},
		{in: "systemd:a:b", err: "FileDescriptorName="},
		{in: "systemd:ä", err: "FileDescriptorName="},
		{in: "inet:127.0.0.1:1=", err: "separated by commas"},
		{in: "inet:127.0.0.1:1=a,", err: "separated by commas"},
		{in: "inet:127.0.0.1:1=a=b", err: "separated by commas"},
		{in: "inet:127.0.0.1:1=a,b,a", err: `"a" is given twice`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseEndpoint(tt.in, queue)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, tt.want)
			}
			spelt := tt.spelt
			if spelt == "" {
				spelt = tt.in
			}
			if got.String() != spelt {
				t.Errorf("spelt %q, want %q", got, spelt)
			}
		})
	}
}

func TestParseEndpointQueueDirectory(t *testing.T) {
	for queue, want := range map[string]string{"": "--queue-directory", "spool": "--queue-directory", "/a=b": `holds "="`} {
		_, err := ParseEndpoint("unix:postern/policyd.sock", queue)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("queue directory %q: got %v", queue, err)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{
		"inet:127.0.0.1:10045", "inet:[::1%x]:1=a,b", "unix:rel/path=x", "unix:/a/../../b", "systemd:n=a",
		"systemd", "unix:\x00", "inet:[[::1]]:1", "inet:::::", "inet:[::1]:0x1", "=", "unix:/=,", "unix:\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s, "/var/spool/postfix")
		if err != nil {
			return
		}
		again, err := ParseEndpoint(e.String(), "")
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%q gave %+v, its spelling %q gave %+v, %v", s, e, e, again, err)
		}
	})
}
