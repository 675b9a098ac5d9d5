package record

// Labels are the labels by which decisions are counted. An empty field is counted
// as "none", and an empty mode as "enforce", as in the record.
type Labels struct {
	Check   string
	Verdict string
	Reason  Reason
	Mode    string
}

// Labels returns the labels of r.
func (r *Record) Labels() Labels { return Labels{r.Check, r.Verdict, r.Reason, r.Mode} }

// Failures returns the reasons with which a check of policyd can fail, or pass a mail
// without an answer, so that their counters can start at 0.
func Failures(check string) []Reason {
	var all []Reason
	for _, u := range vocabulary()[check] {
		if u.unanswered {
			all = append(all, u.reason)
		}
	}
	return all
}

// objects reports whether a verdict keeps mail from passing.
func objects(verdict string) bool { return verdict == held || verdict == deferral || verdict == reject }

// Known returns the labels that decisions of a check can have, so that their
// counters can start at 0. For a check in shadow mode, objections have that mode.
func Known(check string, shadowed bool) []Labels {
	var all []Labels
	for _, u := range vocabulary()[check] {
		for _, verdict := range u.verdicts {
			if verdict == none {
				continue
			}
			l := Labels{check, verdict, u.reason, ModeEnforce}
			if shadowed && (objects(verdict) || u.reason == DMARCQuarantined) {
				l.Mode = ModeShadow
			}
			all = append(all, l)
		}
	}
	return all
}
