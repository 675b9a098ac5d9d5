package record

// Labels are what decisions are counted by. Empty fields read "none", an empty
// mode "enforce", as in the record.
type Labels struct {
	Check   string
	Verdict string
	Reason  Reason
	Mode    string
}

// Labels returns those of r.
func (r *Record) Labels() Labels { return Labels{r.Check, r.Verdict, r.Reason, r.Mode} }

// objects reports whether a verdict interferes with mail.
func objects(verdict string) bool { return verdict == held || verdict == deferral || verdict == reject }

// Known returns the labels that decisions of a check can have, so that they can
// be counted from 0 on. When the check is only watched, its objections have the
// mode of the shadow.
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
