// Postern-policyd answers Postfix's check_policy_service.
package main

import (
	"os"

	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/service"
)

func main() { os.Exit(policyd.Main(service.MainProcess())) }
