package redisstore_test

import (
	"crypto/x509"
	"errors"
	"net"
	"testing"

	"github.com/postern-mail/postern/internal/store/redistest"
)

func TestConformanceTLS(t *testing.T) {
	t.Parallel()
	server := redistest.StartTLS(t)
	conform(t, "rediss://"+server.Addr+"?ca="+server.CA)
}

func TestConformanceSentinelTLS(t *testing.T) {
	t.Parallel()
	conform(t, redistest.StartSentinelsTLS(t).URL())
}

func TestConformanceClusterTLS(t *testing.T) {
	t.Parallel()
	conform(t, redistest.StartClusterTLS(t).URL())
}

// TestTLSRefuses shows that no word is exchanged with a server that cannot
// prove who it is.
func TestTLSRefuses(t *testing.T) {
	server := redistest.StartTLS(t)
	trusting := open(t, "rediss://"+server.Addr+"?ca="+server.CA, "")
	eventually(t, func() error {
		_, err := trusting.Seen(t.Context(), key(1), at(), limits())
		return err
	})

	otherCA, err := redistest.WriteCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]any{
		"rediss://" + server.Addr:                         new(x509.UnknownAuthorityError),
		"rediss://" + server.Addr + "?ca=" + otherCA:      new(x509.UnknownAuthorityError),
		"rediss://localhost:" + port + "?ca=" + server.CA: new(x509.HostnameError),
	} {
		s := open(t, url, "")
		_, err := s.Seen(t.Context(), key(1), at(), limits())
		for range 20 { // on a busy machine the handshake may outlast its time
			if errors.As(err, want) {
				break
			}
			_, err = s.Seen(t.Context(), key(1), at(), limits())
		}
		if !errors.As(err, want) {
			t.Errorf("%s: %v, want %T", url, err, want)
		}
	}
	if _, err := open(t, "redis://"+server.Addr, "").Seen(t.Context(), key(1), at(), limits()); err == nil {
		t.Error("a server with TLS answered in the clear")
	}
}
