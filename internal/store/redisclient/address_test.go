package redisclient_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/store/redisclient"
)

func TestCheckURL(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1":                           "",
		"redis://host:6380/3?prefix=a-b.c":            "",
		"rediss://user@[::1]:6379":                    "",
		"redis+sentinel://a,b:26380,c/mymaster":       "",
		"rediss+sentinel://u@a/m/2?sentinel-auth=yes": "",
		"redis+cluster://a:1,b:2":                     "",
		"":                                            "none of the schemes",
		"http://host":                                 "none of the schemes",
		"redis://user:secret@host":                    "password file",
		"redis://":                                    "no host",
		"redis://a,b":                                 "redis+sentinel",
		"redis://a:0":                                 "no port",
		"redis://a:99999":                             "no port",
		"redis://a/x":                                 "no database number",
		"redis+sentinel://a":                          "no name of the master",
		"redis+cluster://a/1":                         "no database numbers",
		"redis://a?prefix={x}":                        "prefix",
		"redis://a?timeout=1":                         "none of the settings",
		"redis://a?%zz":                               "name=value",
		"redis+sentinel://a/m?sentinel-auth=1":        "yes or no",
		"redis://" + strings.Repeat("a,", 40) + "a":   "more than 32",
	} {
		err := redisclient.CheckURL(url)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password shows: %v", url, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	if _, err := redisclient.Open(redisclient.Options{URL: "rediss://a?ca=/nonexistent.pem"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := redisclient.Open(redisclient.Options{URL: "rediss://a?ca=/dev/null"}); err == nil {
		t.Error("a file without a certificate was taken")
	}
	if _, err := redisclient.Open(redisclient.Options{URL: "redis://a?ca=/dev/null"}); err == nil {
		t.Error("a certificate without TLS was taken")
	}
}

func FuzzCheckURL(f *testing.F) {
	f.Add("redis+sentinel://user@a:1,[::1]:2/name/3?prefix=x&ca=y")
	f.Add("redis://@/?")
	f.Fuzz(func(t *testing.T, url string) {
		if redisclient.CheckURL(url) != nil {
			return
		}
		if strings.Contains(url, "ca=") {
			return // would read files
		}
		s, err := redisclient.Open(redisclient.Options{URL: url})
		if err != nil {
			t.Fatalf("%q: %v", url, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
