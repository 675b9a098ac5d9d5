package resolver

// The outcomes of a question, for Config.Took.
const (
	outcomeAnswer      = "answer"
	outcomeAbsent      = "absent"      // no such name, or no record of this type
	outcomeRefused     = "refused"     // an error code, or an answer that cannot be read
	outcomeTimeout     = "timeout"     // silence
	outcomeUnreachable = "unreachable" // the servers cannot be reached
	outcomeEnded       = "ended"       // for another question, or by Close
)

// Outcomes are all values that Config.Took can receive.
func Outcomes() []string {
	return []string{outcomeAnswer, outcomeAbsent, outcomeRefused, outcomeTimeout, outcomeUnreachable, outcomeEnded}
}

// kind returns the outcome as one of Outcomes.
func (o *outcome) kind() string {
	switch {
	case o.fail == nil && o.answer.size() == 0:
		return outcomeAbsent
	case o.fail == nil:
		return outcomeAnswer
	}
	switch o.fail.kind {
	case failAnswer:
		return outcomeRefused
	case failSilent:
		return outcomeTimeout
	case failUnreachable, failLocal:
		return outcomeUnreachable
	}
	return outcomeEnded
}
