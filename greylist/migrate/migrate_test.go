package migrate_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/migrate"
)

const postgreyPrint = `VERSION=3
format=print
type=btree
db_pagesize=4096
HEADER=END
 192.0.2.0/alice@example.org/bob@example.net
 1700000000,1700000400
 192.0.2.0/early@example.org/bob@example.net
 1700000000,1700000030
 198.51.100.0//bob@example.net
 1700000000,1700000400
 2001:db8:1:2:0:0:0:0/ver#-#@example.org/b\5cc@example.net
 1700000000,1700000400
 192.0.2.0/odd/slash@example.org/bob@example.net
 1700000000,1700000400
 0123456789abcdef0123456789abcdef01234567
 1700000000,1700000400
 192.0.2.0/nobody
 1700000000,1700000400
 192.0.2.0/x@y/z@w
 never
 192.0.2.0/x@y/z@w\zz
 1700000000,1700000400
DATA=END
VERSION=3
format=bytevalue
HEADER=END
 3139322e302e322e3737
 37 2c
 3139322e302e322e3737
 372c31373030303030343030
DATA=END
`

func at(unix int64) greylist.Stamp { return greylist.Stamp(unix * 1000) }

func collect(t *testing.T, read func(func(migrate.Entry) error) (migrate.Summary, error)) ([]greylist.Entry, migrate.Summary) {
	t.Helper()
	var entries []greylist.Entry
	result, err := read(func(e migrate.Entry) error {
		ours, err := e.Entry(greylist.Keyer{Bits4: 24, Bits6: 64})
		if err != nil {
			t.Errorf("%+v: %v", e, err)
		}
		entries = append(entries, ours)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries, result
}

func compare(t *testing.T, got, want []greylist.Entry) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("too many: %+v", got[i])
		case i >= len(got):
			t.Errorf("missing: %+v", want[i])
		case got[i] != want[i]:
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

func TestPostgrey(t *testing.T) {
	got, result := collect(t, func(yield func(migrate.Entry) error) (migrate.Summary, error) {
		return migrate.Postgrey(strings.NewReader(postgreyPrint), time.Minute, yield)
	})
	passed := greylist.Triplet{First: at(1700000000), Last: at(1700000400), Passed: at(1700000400)}
	compare(t, got, []greylist.Entry{
		{ID: "192.0.2.0/24 alice@example.org bob@example.net", Triplet: passed},
		{ID: "192.0.2.0/24 early@example.org bob@example.net", Triplet: greylist.Triplet{First: at(1700000000), Last: at(1700000030)}},
		{ID: "198.51.100.0/24 <> bob@example.net", Triplet: passed},
		{ID: "2001:db8:1:2::/64 ver#-#@example.org b\\c@example.net", Triplet: passed},
		{ID: "192.0.2.0/24 odd/slash@example.org bob@example.net", Triplet: passed},
		{ID: "192.0.2.0/24", Client: greylist.Client{Passes: 7, Last: at(1700000400)}},
	})
	if result.Read != 6 || result.Skipped != 5 || len(result.Why) != 5 || !strings.Contains(result.Why[0], "line 17: a hashed key") {
		t.Errorf("%+v", result)
	}
}

// TestPostgreyKeys holds that a sender in postgrey's form and the sender as it
// comes have one key.
func TestPostgreyKeys(t *testing.T) {
	for arrives, stored := range map[string]string{
		"0100018f2a3b4c5d-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d-000000": "0100018f2a3b4c5d-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d-#",
		"123e4567-1111-2222-3333-426614174000":                         "123e4567-#-#-#-#",
		"bounces+1234-bob=x":                                           "bounces",
		"prvs=0123456abc=carol":                                        "carol",
		"list-return-17-bob=example.net":                               "list-return-#-bob=example.net",
		"SRS0=HHHH=22=163.example=erin":                                "SRS0=HHHH=#=#.example=erin",
		"SRS0+HHHH=TT=origin.example=eve":                              "SRS0",
		"user_12":                                                      "user_12",
	} {
		if a, b := greylist.Sender(arrives, "example.org"), greylist.Sender(stored, "example.org"); a != b {
			t.Errorf("%s: %q, from postgrey %q", arrives, a, b)
		}
	}
}

func TestPostgreyRefused(t *testing.T) {
	for _, text := range []string{"", "hello\n", " key\n value\n", strings.Repeat("x", 100)} {
		if _, err := migrate.Postgrey(strings.NewReader(text), time.Minute, func(migrate.Entry) error { return nil }); err == nil {
			t.Errorf("%.20q was taken", text)
		}
	}
	stop := errors.New("stop")
	if _, err := migrate.Postgrey(strings.NewReader(postgreyPrint), time.Minute, func(migrate.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}

var sqlgreyDumps = map[string]string{
	"sqlite": `PRAGMA foreign_keys=OFF;
CREATE TABLE connect (sender_name varchar(64));
INSERT INTO connect VALUES('alice','example.org','192.0.2','bob@example.net','2023-11-14 22:13:20');
INSERT INTO connect VALUES('-undef-','-undef-','192.0.2.7','o''neil@example.net','2023-11-14 22:13:20');
INSERT INTO "from_awl" VALUES('alice','shop.example','198.51.100','2023-11-01 00:00:00','2023-11-14 22:13:20');
INSERT INTO domain_awl VALUES('news.example','2001:db8::7','2023-11-01 00:00:00','2023-11-14 22:13:20');
INSERT INTO other VALUES('x');
INSERT INTO connect VALUES('short');
INSERT INTO connect VALUES('a','b','not an address','c','2023-11-14 22:13:20');
INSERT INTO connect VALUES('a','b','192.0.2','c','yesterday');
INSERT INTO from_awl VALUES('-undef-','-undef-','198.51.100','2023-11-01 00:00:00','2023-11-14 22:13:20');
`,
	"mysql": "INSERT INTO `connect` VALUES ('alice','example.org','192.0.2','bob@example.net','2023-11-14 22:13:20'),('-undef-','-undef-','192.0.2.7','o\\'neil@example.net','2023-11-14 22:13:20');\n" +
		"INSERT INTO `from_awl` (`src`,`sender_name`,`sender_domain`,`last_seen`,`first_seen`) VALUES ('198.51.100','alice','shop.example','2023-11-14 22:13:20','2023-11-01 00:00:00');\n" +
		"INSERT INTO `domain_awl` VALUES ('news.example','2001:db8::7','2023-11-01 00:00:00','2023-11-14 22:13:20');\n",
	"postgresql": "COPY public.connect (sender_name, sender_domain, src, rcpt, first_seen) FROM stdin;\n" +
		"alice\texample.org\t192.0.2\tbob@example.net\t2023-11-14 22:13:20+00\n" +
		"-undef-\t-undef-\t192.0.2.7\to'neil@example.net\t2023-11-14 22:13:20\n\\.\n\n" +
		"COPY public.from_awl (sender_name, sender_domain, src, first_seen, last_seen) FROM stdin;\n" +
		"alice\tshop.example\t198.51.100\t2023-11-01 00:00:00\t2023-11-14 22:13:20\n\\.\n" +
		"COPY public.unknown (a) FROM stdin;\nINSERT INTO connect\n\\.\n" +
		"INSERT INTO public.domain_awl VALUES ('news.example', '2001:db8::7', '2023-11-01 00:00:00', '2023-11-14 22:13:20');\n",
}

func TestSqlgrey(t *testing.T) {
	last := at(1700000000)
	waiting := greylist.Triplet{First: last, Last: last}
	for name, dump := range sqlgreyDumps {
		t.Run(name, func(t *testing.T) {
			got, result := collect(t, func(yield func(migrate.Entry) error) (migrate.Summary, error) {
				return migrate.Sqlgrey(strings.NewReader(dump), time.UTC, yield)
			})
			compare(t, got, []greylist.Entry{
				{ID: "192.0.2.0/24 alice@example.org bob@example.net", Triplet: waiting},
				{ID: "192.0.2.0/24 <> o'neil@example.net", Triplet: waiting},
				{ID: "shop.example@198.51.100.0/24", Client: greylist.Client{Passes: 1000, Last: last}},
				{ID: "news.example@2001:db8::/64", Client: greylist.Client{Passes: 1000, Last: last}},
			})
			if want := map[string]int{"sqlite": 4}[name]; result.Skipped != want || result.Read != 4 {
				t.Errorf("%+v", result)
			}
		})
	}
	if _, err := migrate.Sqlgrey(strings.NewReader("SELECT 1;\n"), time.UTC, func(migrate.Entry) error { return nil }); err == nil {
		t.Error("a dump of something else was taken")
	}
}

func TestEntryRefused(t *testing.T) {
	for _, e := range []migrate.Entry{{Client: "nobody", Last: 1}, {Client: "192.0.2.1"}} {
		if got, err := e.Entry(greylist.Keyer{Bits4: 24, Bits6: 64}); err == nil {
			t.Errorf("%+v: %+v", e, got)
		}
	}
}

func FuzzPostgrey(f *testing.F) {
	f.Add(postgreyPrint)
	f.Fuzz(func(t *testing.T, text string) {
		check(t, func(yield func(migrate.Entry) error) {
			_, _ = migrate.Postgrey(strings.NewReader(text), time.Minute, yield)
		})
	})
}

func FuzzSqlgrey(f *testing.F) {
	for _, dump := range sqlgreyDumps {
		f.Add(dump)
	}
	f.Add("INSERT INTO connect VALUES(('\\")
	f.Fuzz(func(t *testing.T, text string) {
		check(t, func(yield func(migrate.Entry) error) {
			_, _ = migrate.Sqlgrey(strings.NewReader(text), time.UTC, yield)
		})
	})
}

// check holds that what was read can be stored, and found by its ID.
func check(t *testing.T, read func(func(migrate.Entry) error)) {
	read(func(e migrate.Entry) error {
		ours, err := e.Entry(greylist.Keyer{Bits4: 24, Bits6: 64})
		if err != nil {
			return nil
		}
		if client, _, _ := ours.ID.Split(); client == "" || ours.ID.IsClient() != (e.Passes > 0) || ours.Triplet.First < 0 || ours.Client.Last < 0 {
			t.Errorf("%+v became %+v", e, ours)
		}
		return nil
	})
}
