package dmarc

import "github.com/postern-mail/postern/internal/resolver/resolvertest"

// zone is the DNS of these tests.
type zone = resolvertest.Table

func newZone() *zone { return resolvertest.NewTable() }
