package wire

import (
	"bytes"
	"strings"
)

// stages are the commands that macros may belong to, in the order of a session.
const stages = "CHMRTLNBEU"

// Macros are the latest macros of each stage. The zero value has none. It is not safe
// for concurrent use.
//
// MTAs send macros before every header field and every body chunk. Therefore a frame
// is kept as it came, and parsed only when a value is asked for.
type Macros struct {
	byStage [len(stages)][]byte
	fresh   Command // the command that the next frame must be for its macros to count
}

func checkMacros(payload []byte) error {
	if strings.IndexByte(stages, payload[0]) < 0 {
		return protocolError("macros for unknown command %q", payload[0])
	}
	pairs := payload[1:]
	if len(pairs) > 0 && pairs[len(pairs)-1] != 0 {
		return protocolError("macro frame does not end in NUL")
	}
	if bytes.Count(pairs, []byte{0})%2 != 0 {
		return protocolError("macro without a value")
	}
	return nil
}

// usualMacros is the room, in octets, that a stage keeps when its macros are dropped.
const usualMacros = 1 << 10

// set keeps a checked macro frame, if those of all stages together are not too long.
func (m *Macros) set(payload []byte) error {
	i := strings.IndexByte(stages, payload[0])
	m.drop(i)
	kept := len(payload)
	for _, macros := range m.byStage {
		kept += len(macros)
	}
	if kept > MaxMacros {
		return protocolError("macros of %d octets are too long (at most %d)", kept, MaxMacros)
	}
	m.byStage[i] = append(m.byStage[i], payload[1:]...)
	m.fresh = Command(payload[0])
	return nil
}

// drop drops the macros of a stage.
func (m *Macros) drop(i int) {
	if cap(m.byStage[i]) > usualMacros {
		m.byStage[i] = nil
	}
	m.byStage[i] = m.byStage[i][:0]
}

// enter is called for each command. If no macros came with this command, those of an
// earlier command of the same stage are dropped. A new message starts without macros.
func (m *Macros) enter(c Command) {
	fresh := m.fresh == c
	m.fresh = 0
	switch c {
	case Mail:
		m.clearMessage(fresh)
		return
	case Abort:
		m.clearMessage(false)
		return
	case QuitNC:
		*m = Macros{}
		return
	}
	if i := strings.IndexByte(stages, byte(c)); i >= 0 && !fresh {
		m.drop(i)
	}
}

// clearMessage drops the macros of a message and keeps those of CONNECT and HELO.
func (m *Macros) clearMessage(keepMail bool) {
	for i := strings.IndexByte(stages, byte(Mail)); i < len(stages); i++ {
		if keepMail && stages[i] == byte(Mail) {
			continue
		}
		m.drop(i)
	}
}

// Get returns the value of a macro, written as the MTA writes it ("i",
// "{auth_type}"), from the latest stage that has it, or "". Sendmail sends some names
// without their braces; both spellings mean the same macro.
func (m *Macros) Get(name string) string {
	for i := len(stages) - 1; i >= 0; i-- {
		if value, ok := lookup(m.byStage[i], name); ok {
			return value
		}
	}
	return ""
}

// At returns the value of a macro that came with one stage, or "".
func (m *Macros) At(stage Command, name string) string {
	i := strings.IndexByte(stages, byte(stage))
	if i < 0 {
		return ""
	}
	value, _ := lookup(m.byStage[i], name)
	return value
}

// lookup searches "name NUL value NUL" pairs.
func lookup(pairs []byte, name string) (string, bool) {
	for len(pairs) > 0 {
		key, rest, _ := bytes.Cut(pairs, []byte{0})
		value, after, _ := bytes.Cut(rest, []byte{0})
		if sameMacro(key, name) {
			return string(value), true
		}
		pairs = after
	}
	return "", false
}

func sameMacro(key []byte, name string) bool {
	return string(bare(key)) == string(bare([]byte(name)))
}

// bare drops the braces around a macro's name.
func bare(name []byte) []byte {
	if len(name) > 2 && name[0] == '{' && name[len(name)-1] == '}' {
		return name[1 : len(name)-1]
	}
	return name
}
