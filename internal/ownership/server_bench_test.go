package ownership_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// benchSenders is the size of the table that the servers hold.
const benchSenders = 10_000

func benchSender(i int) (sender, login string) {
	i %= benchSenders
	return fmt.Sprintf("user%06d@mail.example.com", i), fmt.Sprintf("login%06d@mail.example.com", i)
}

func benchOwners(b *testing.B, table postmap.Table) *ownership.Owners {
	b.Helper()
	owners, err := ownership.New(ownership.Config{
		Owners: []postmap.Table{table}, SelfOwned: true, Delimiters: "+",
		LoginDomain: "example.com", LocalDomains: []string{"mail.example.com"},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = owners.Close() })
	return owners
}

func benchCheck(b *testing.B, owners *ownership.Owners) {
	b.Helper()
	b.ReportAllocs()
	senders, logins := make([]mailaddr.Address, benchSenders), make([]string, benchSenders)
	for i := range benchSenders {
		sender, login := benchSender(i)
		senders[i], logins[i] = mailaddr.ParseInternal(sender), login
	}
	for i := 0; b.Loop(); i++ {
		n := i % benchSenders
		if answer, err := owners.Check(b.Context(), senders[n], logins[n]); err != nil || !answer.Owned {
			b.Fatal(answer, err)
		}
	}
}

// BenchmarkCached compares a remembered answer of a server with a hash: table of
// the same entries; the aim is at most 1.3 times its time.
func BenchmarkCached(b *testing.B) {
	var text strings.Builder
	for i := range benchSenders {
		sender, login := benchSender(i)
		fmt.Fprintf(&text, "%s %s\n", sender, login)
	}
	hash, err := postmap.Open("hash:"+file(b, "owners", text.String()), postmap.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("hash", func(b *testing.B) { benchCheck(b, benchOwners(b, hash)) })
	b.Run("server", func(b *testing.B) {
		cached := postmap.Table{Spec: "bench:", Source: remote.New(hash.Source, remote.Config{TTL: time.Hour, NegativeTTL: time.Hour, MaxEntries: 4 * benchSenders})}
		owners := benchOwners(b, cached)
		for i := range benchSenders { // remember them all
			sender, login := benchSender(i)
			if _, err := owners.Check(b.Context(), mailaddr.ParseInternal(sender), login); err != nil {
				b.Fatal(err)
			}
		}
		benchCheck(b, owners)
	})
}

const (
	benchConns = 16
	benchBatch = 200 // questions a caller asks in one round
)

// BenchmarkUncachedMySQL compares look-ups without a cache, by 16 callers on 16
// connections, with the same prepared statement through the bare driver. The
// two are measured in turn. The metric "of-driver" is the median of the rounds,
// and should be at least 0.6.
func BenchmarkUncachedMySQL(b *testing.B) {
	var rows []string
	for i := range benchSenders {
		sender, login := benchSender(i)
		rows = append(rows, fmt.Sprintf("('%s','%s')", sender, login))
	}
	m := backendtest.NewMariaDB(b, "CREATE DATABASE mail CHARACTER SET utf8mb4;\nCREATE TABLE mail.owners (sender VARCHAR(200) PRIMARY KEY, login VARCHAR(200));\nINSERT INTO mail.owners VALUES "+strings.Join(rows, ",")+";\n"+
		"CREATE USER postfix@localhost IDENTIFIED BY 'secret';\nGRANT SELECT ON mail.* TO postfix@localhost;\n")
	const query = "SELECT login FROM owners WHERE sender = "
	db, err := sql.Open("mysql", "postfix:secret@unix("+m.Socket+")/mail")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(benchConns)
	db.SetMaxIdleConns(benchConns)
	statement, err := db.PrepareContext(b.Context(), query+"?")
	if err != nil {
		b.Fatal(err)
	}
	table, err := postmap.Open("mysql:"+file(b, "owners.cf", "hosts = unix:"+m.Socket+"\nuser = postfix\npassword = secret\ndbname = mail\nquery = "+query+"'%s'\n"), postmap.Options{MaxConns: benchConns})
	if err != nil {
		b.Fatal(err)
	}
	owners := benchOwners(b, table)
	var ratios []float64
	for b.Loop() {
		driver := benchRound(b, func(sender, login string) error {
			var got string
			if err := statement.QueryRowContext(b.Context(), sender).Scan(&got); err != nil || got != login {
				return fmt.Errorf("%s: %q, %w", sender, got, err)
			}
			return nil
		})
		postern := benchRound(b, func(sender, login string) error {
			if answer, err := owners.Check(b.Context(), mailaddr.ParseInternal(sender), login); err != nil || !answer.Owned {
				return fmt.Errorf("%s: %+v, %w", sender, answer, err)
			}
			return nil
		})
		ratios = append(ratios, driver.Seconds()/postern.Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "of-driver")
}

// benchRound lets every caller make a batch of look-ups and returns the total
// time.
func benchRound(b *testing.B, ask func(sender, login string) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range benchConns {
		wg.Go(func() {
			for range benchBatch {
				sender, login := benchSender(int(next.Add(1)))
				if err := ask(sender, login); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}
