package postmap

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// A pooler in transaction mode gives each question to any of the server's sessions,
// which other programs use too. Several tables at once, each with several
// connections, are answered as by the server itself.
func TestPooledPostgreSQL(t *testing.T) {
	p := backendtest.NewPostgreSQL(t, "CREATE TABLE owners (sender text, login text)", "INSERT INTO owners VALUES "+values())
	b := backendtest.NewPgBouncer(t, p)
	server := "hosts = inet:" + b.Addr + "\nuser = postfix\ndbname = postgres\n"
	for _, query := range []string{"SELECT login FROM owners WHERE sender = '%s'", "SELECT concat('%u', ' ', login) FROM owners WHERE sender = '%s'"} {
		newPostmap(t).compareAsked(t, "pgsql:"+file(t, "owners.cf", server+"query = "+query+"\n"), formKeys)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 4 {
		table, err := Open("pgsql:"+file(t, fmt.Sprintf("%d.cf", i), server+"query = SELECT login FROM owners WHERE sender = '%s'\n"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Source.Close() })
		for range 4 {
			wg.Go(func() {
				for range 25 {
					if got, err := table.Source.Lookup(t.Context(), "ann@x.example"); err != nil || strings.Join(got, ",") != "ann" {
						t.Errorf("%q, %v", got, err)
						return
					}
				}
			})
		}
	}
}
