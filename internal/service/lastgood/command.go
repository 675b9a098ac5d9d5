package lastgood

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/service"
)

// Command answers api.Reload: it asks for a reload. With force the reload uses
// the texts that are held back.
func Command[S any](current *service.Current[S], r service.Runtime) admin.Handler {
	return admin.Typed(func(_ context.Context, args api.ReloadArgs, _ func(any)) (any, error) {
		life := current.NewLife(nil)
		defer life.Discard()
		guard, err := Of(life, r)
		if err != nil {
			return nil, err
		}
		result := api.ReloadResult{Held: guard.Held()}
		if args.Force {
			result.Taken = guard.Take()
		}
		if r.Reload != nil {
			r.Reload("postern reload")
		}
		return result, nil
	})
}
