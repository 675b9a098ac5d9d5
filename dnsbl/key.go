package dnsbl

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// The zones of the Spamhaus Data Query Service are <key>.<list>.dq.spamhaus.net.
// Such a name without the key means a list that has no public mirror.
const (
	serviceSuffix = ".dq.spamhaus.net"
	publicSuffix  = ".spamhaus.org"
	freshZone     = "zrd" + serviceSuffix
	authZone      = "authbl" + serviceSuffix
)

// mask replaces the key.
const mask = "***"

// isKeyable reports whether a public name has a zone in the keyed service.
func isKeyable(public string) bool {
	return public == freshZone || public == "dbl.spamhaus.org" ||
		slices.Contains(tableOf("zen.spamhaus.org").zones, public)
}

// serviceName returns the zone of the keyed service, without the key.
func serviceName(public string) string {
	return strings.TrimSuffix(strings.TrimSuffix(public, publicSuffix), serviceSuffix) + serviceSuffix
}

// publicName returns the name that is used for a list everywhere in this package.
func publicName(zone string) string {
	list, isService := strings.CutSuffix(zone, serviceSuffix)
	switch {
	case isService && isKeyable(list+publicSuffix):
		return list + publicSuffix
	case zone == "zrd"+publicSuffix:
		return freshZone
	case zone == "authbl"+publicSuffix:
		return authZone
	}
	return zone
}

// withFresh adds the list of newly seen domains, unless it is there already.
func withFresh(sites []Site) []Site {
	if slices.ContainsFunc(sites, func(s Site) bool { return publicName(s.Zone) == freshZone }) {
		return sites
	}
	return append(slices.Clone(sites), Site{Zone: freshZone})
}

// hidesKey reports whether a zone name contains a key.
func hidesKey(zone string) bool {
	list, isService := strings.CutSuffix(zone, serviceSuffix)
	return isService && strings.Contains(list, ".")
}

const (
	minKey = 16
	maxKey = maxLabel
)

// CheckKey checks the form of a key. The error does not contain the key. Today's
// keys have 26 letters and digits.
func CheckKey(k Key) error {
	key := k.Reveal()
	if len(key) < minKey || len(key) > maxKey || strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return errors.New("this is not a DQS key: one has 26 letters and digits; copy it from the Spamhaus portal")
	}
	return nil
}

// HideKeys masks all labels in front of a zone of the keyed service. It is for
// texts that are written before the key is known: people put their key into zone
// names.
func HideKeys(text string) string {
	if !strings.Contains(strings.ToLower(text), serviceSuffix) {
		return text
	}
	return keyedZone().ReplaceAllString(text, mask+".$1")
}

func keyedZone() *regexp.Regexp {
	return regexp.MustCompile(`(?i)[a-z0-9_-]+\.([a-z-]+\.dq\.spamhaus\.net)`)
}

// scrubber masks one key in texts. The zero value masks nothing.
type scrubber struct{ key *regexp.Regexp }

func newScrubber(key string) scrubber {
	return scrubber{regexp.MustCompile(`(?i)` + regexp.QuoteMeta(key))}
}

func (s scrubber) clean(text string) string {
	if s.key == nil {
		return text
	}
	return s.key.ReplaceAllString(text, mask)
}
