package milter

import (
	"errors"
	"strings"
	"sync"

	library "github.com/emersion/go-milter"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/milter/wire"
)

// limits are the actions and options that the MTA of a connection allows. With an old
// protocol version (milter_protocol in Postfix) there are fewer actions, no leading
// space of fields, no lists of macros, and no commands without a reply.
type limits wire.Offer

func (l limits) may(a library.OptAction) bool { return l.Actions&uint32(a) == uint32(a) }

// spaced reports whether field values come and go with the space behind the colon.
func (l limits) spaced() bool { return l.Protocol&uint32(library.OptHeaderLeadingSpace) != 0 }

// received returns a field value as the message has it. An MTA that does not keep the
// leading space has removed one, so it is added again. If there was none, that
// matters only to signatures with simple header canonicalization.
func (l limits) received(value string) string {
	if l.spaced() || value == "" || value[0] == '\t' || value[0] == '\r' {
		return value
	}
	return " " + value
}

// sent returns a field value as the MTA expects it. An MTA that does not keep our
// leading space adds one itself.
func (l limits) sent(value string) string {
	if l.spaced() {
		return value
	}
	return strings.TrimPrefix(value, " ")
}

// Modifications that an MTA did not offer.
var (
	errNoAdding     = errors.New("the MTA does not let milters add header fields; set milter_protocol = 6")
	errNoChanging   = errors.New("the MTA does not let milters change or delete header fields; set milter_protocol = 6")
	errNoQuarantine = errors.New("the MTA does not let milters hold mail; set milter_protocol = 6")
)

// cut removes from a decision the modifications that the MTA does not allow, and
// returns them as an error.
func (l limits) cut(d *Decision) error {
	var problems []error
	if len(d.Insert) > 0 && !l.may(library.OptAddHeader) {
		d.Insert = nil
		problems = append(problems, errNoAdding)
	}
	if len(d.Change)+len(d.Delete) > 0 && !l.may(library.OptChangeHeader) {
		d.Change, d.Delete = nil, nil
		problems = append(problems, errNoChanging)
	}
	if d.Quarantine != "" && !l.may(library.OptQuarantine) {
		d.Quarantine = ""
		problems = append(problems, errNoQuarantine)
	}
	return errors.Join(problems...)
}

// limitReport reports MTAs that offer less than we ask for: once in the log, and each
// SMTP session in its counter.
type limitReport struct {
	log   *zap.Logger
	count func(version uint32) // may be nil
	once  sync.Once
}

// check is called when a session begins. wanted are the options that we asked for.
func (r *limitReport) check(g *wire.Guard, wanted library.OptProtocol) {
	agreed := g.Agreed()
	if agreed.Actions == uint32(actions) && agreed.Protocol == uint32(wanted) {
		return
	}
	if r.count != nil {
		r.count(g.Version())
	}
	r.once.Do(func() {
		r.log.Warn("the MTA speaks an old milter protocol: fields lose their leading space, and more round trips are needed; remove milter_protocol from Postfix's main.cf, or set it to 6",
			zap.Uint32("version", g.Version()),
			zap.Uint32("missing_actions", uint32(actions)&^agreed.Actions),
			zap.Uint32("missing_options", uint32(wanted)&^agreed.Protocol))
	})
}
