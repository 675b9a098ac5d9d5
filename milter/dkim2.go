package milter

import "github.com/postern-mail/postern/internal/author"

// hasDKIM2 reports whether a message has fields of DKIM2. The milter does not change
// or sign them; it only counts such messages.
func (m *Message) hasDKIM2() bool {
	for i := range m.Header {
		if author.Named(m.Header[i].Name, "dkim2-signature") || author.Named(m.Header[i].Name, "message-instance") {
			return true
		}
	}
	return false
}
