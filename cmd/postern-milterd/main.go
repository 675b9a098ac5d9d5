// Postern-milterd answers Postfix's smtpd_milters and non_smtpd_milters.
package main

import (
	"os"

	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/service"
)

func main() {
	milterd.Tune()
	os.Exit(milterd.Main(service.MainProcess()))
}
