package memstore_test

import (
	"testing"

	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/greylist/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Subject { return memstore.New(memstore.Options{}) })
}
