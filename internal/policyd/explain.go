package policyd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy"
)

// Unquoted returns an address that is written with quotes, as in SMTP and in Postfix's log,
// in the form in which Postfix asks about it.
func Unquoted(text string) string {
	if a := mailaddr.Parse(text); a.IsValid() && strings.Contains(text, `"`) {
		return a.Key()
	}
	return text
}

// adviser is a part that can say what would let a request pass that its check refused,
// or could not judge.
type adviser interface {
	advise(ctx context.Context, r *policy.Request, step *policy.Step) []string
}

// explain returns the answer that a request of Postfix would get.
func (c *current) explain(ctx context.Context, args api.PolicyExplainArgs, _ func(any)) (any, error) {
	s, release := c.Acquire()
	defer release()
	if s == nil {
		return nil, errStopped
	}
	attributes := make([]policy.Attribute, len(args.Attributes))
	for i, a := range args.Attributes {
		attributes[i] = policy.Attribute(a)
	}
	r, err := policy.ParseRequest(attributes, time.Now())
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: err.Error()}
	}
	return s.explain(ctx, r), nil
}

func (s *state) explain(ctx context.Context, r *policy.Request) api.PolicyExplanation {
	chain, wrong := s.router.Look(r.Context)
	ctx, cancel := context.WithTimeout(ctx, s.settings.Deadline)
	defer cancel()
	x := chain.Explain(ctx, r)
	out := api.PolicyExplanation{
		Context: r.Context, Verdict: x.Kind.String(), Check: x.Check, Reason: string(x.Reason), Mode: x.Mode.String(), Action: x.Action.String(),
		Error: errorText(x.Err), Steps: []api.PolicyStep{},
	}
	if x.Mode == policy.Shadow {
		out.Verdict, out.Check, out.Reason, out.Error = x.Would.Kind.String(), x.Would.Check, string(x.Would.Reason), errorText(x.Would.Err)
	}
	if wrong != nil {
		out.Notes = append(out.Notes, wrong.Error())
	}
	for i := range x.Steps {
		step := &x.Steps[i]
		out.Steps = append(out.Steps, explainStep(step, chain[i].OnError, x.Took[i]))
		out.Steps[i].Decides = step.Check == out.Check
		for _, text := range s.advise(ctx, r, step, chain[i].OnError) {
			out.Advice = append(out.Advice, api.PolicyAdvice{Check: step.Check, Text: text})
		}
	}
	asked := chain.Asked()
	for _, e := range asked[min(len(x.Steps), len(asked)):] {
		out.Unasked = append(out.Unasked, e.Check.Name())
	}
	return out
}

func explainStep(step *policy.Step, rule policy.OnError, took time.Duration) api.PolicyStep {
	out := api.PolicyStep{
		Check: step.Check, Verdict: step.Verdict.Kind.String(), Reason: string(step.Verdict.Reason), Mode: step.Mode.String(),
		Detail: step.Verdict.Detail, Error: errorText(step.Unanswered()), Millis: millis(took),
	}
	if step.Failed() {
		out.Verdict, out.OnError = "error", wordPass
		if step.Err != nil && rule == policy.ErrorDefer {
			out.OnError = wordDefer
		}
	}
	return out
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// advise returns the advice of a check that has refused, or would refuse.
func (s *state) advise(ctx context.Context, r *policy.Request, step *policy.Step, rule policy.OnError) []string {
	objects := step.Verdict.Kind == policy.Defer || step.Verdict.Kind == policy.Reject || step.Err != nil && rule == policy.ErrorDefer
	if !objects {
		return nil
	}
	i := slices.IndexFunc(s.settings.rooms, func(room room) bool { return room.name == step.Check })
	if i < 0 {
		return []string{"correct policy_context in main.cf or master.cf; the checks that run are in --checks"}
	}
	var texts []string
	if a, ok := s.settings.rooms[i].part.(adviser); ok {
		texts = a.advise(ctx, r, step)
	}
	if step.Mode == policy.Shadow {
		return append(texts, "nothing needs to change for this mail: the check is in --shadow")
	}
	return append(texts, fmt.Sprintf("--shadow=%s would record it and let it pass", step.Check))
}
