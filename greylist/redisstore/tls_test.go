package redisstore_test

import (
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
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
	const otherAuthority, otherName = "; name the file of its CA", "; give the server a certificate for this name"
	for url, want := range map[string]struct {
		err any
		fix string
	}{
		"rediss://" + server.Addr:                         {new(x509.UnknownAuthorityError), otherAuthority},
		"rediss://" + server.Addr + "?ca=" + otherCA:      {new(x509.UnknownAuthorityError), otherAuthority},
		"rediss://localhost:" + port + "?ca=" + server.CA: {new(x509.HostnameError), otherName},
	} {
		s := open(t, url, "")
		_, err := s.Seen(t.Context(), key(1), at(), limits())
		for range 20 { // on a busy machine the handshake may outlast its time
			if errors.As(err, want.err) {
				break
			}
			_, err = s.Seen(t.Context(), key(1), at(), limits())
		}
		if !errors.As(err, want.err) || !strings.Contains(err.Error(), want.fix) {
			t.Errorf("%s: %v, want %T with the fix %q", url, err, want.err, want.fix)
		}
	}
	if _, err := open(t, "redis://"+server.Addr, "").Seen(t.Context(), key(1), at(), limits()); err == nil || !strings.Contains(err.Error(), "; perhaps it expects TLS") {
		t.Errorf("in the clear: %v", err)
	}
}

// TestAuthorityIsReplaced writes another authority into the file that an open store was
// given: its next connection trusts it, because authorities are replaced before they expire.
func TestAuthorityIsReplaced(t *testing.T) {
	server := redistest.StartTLS(t)
	ca, err := redistest.WriteCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "rediss://"+server.Addr+"?ca="+ca, "")
	if _, err := s.Seen(t.Context(), key(1), at(), limits()); err == nil {
		t.Fatal("a server of another authority is trusted")
	}
	if err := os.Rename(server.CA, ca); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := s.Seen(t.Context(), key(1), at(), limits())
		return err
	})
}
