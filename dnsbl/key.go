package dnsbl

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// The zones of the Spamhaus Data Query Service are <key>.<list>.dq.spamhaus.net.
// Without the key those names mean the lists that have no public mirror.
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

// serviceName gives the zone of the keyed service, without the key.
func serviceName(public string) string {
	return strings.TrimSuffix(strings.TrimSuffix(public, publicSuffix), serviceSuffix) + serviceSuffix
}

// publicName gives the one name under which a list is known here.
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

// withFresh adds the list of newly seen domains, unless it is there.
func withFresh(sites []Site) []Site {
	if slices.ContainsFunc(sites, func(s Site) bool { return publicName(s.Zone) == freshZone }) {
		return sites
	}
	return append(slices.Clone(sites), Site{Zone: freshZone})
}

// hidesKey recognises a zone name that has a key in it.
func hidesKey(zone string) bool {
	list, isService := strings.CutSuffix(zone, serviceSuffix)
	return isService && strings.Contains(list, ".")
}

const (
	minKey = 16
	maxKey = maxLabel
)

// CheckKey looks at a key's form; the error does not repeat it. Today's keys
// have 26 letters and digits.
func CheckKey(k Key) error {
	key := k.Reveal()
	if len(key) < minKey || len(key) > maxKey || strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return errors.New("this is not a DQS key: one has 26 letters and digits; copy it from the Spamhaus portal")
	}
	return nil
}

// HideKeys masks whatever is in front of a zone of the keyed service, with
// which people quote their key: for texts that come before the key is known.
func HideKeys(text string) string {
	if !strings.Contains(strings.ToLower(text), serviceSuffix) {
		return text
	}
	return keyedZone().ReplaceAllString(text, mask+".$1")
}

func keyedZone() *regexp.Regexp {
	return regexp.MustCompile(`(?i)[a-z0-9_-]+\.([a-z-]+\.dq\.spamhaus\.net)`)
}

// scrubber masks one key. The zero value masks nothing.
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
