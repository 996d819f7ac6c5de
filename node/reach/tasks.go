package reach

import (
	"context"
	"time"

	"pelago/node/work"
)

// dropEvery is how often copies are looked through for what was deleted.
const dropEvery = 10 * time.Minute

// mendEvery is how often packs that are known to be lost here are looked for
// elsewhere. What readers meet is fetched back at once.
const mendEvery = time.Hour

// Tasks is the background work: keeping copies, dropping those of what was
// deleted, and fetching back what was lost here.
func (r *Reader) Tasks() []work.Task {
	again := &work.Restart{}
	return []work.Task{
		{Name: "cache", Run: r.o.Copies.Run, Restart: again},
		{Name: "cache_deleted", Restart: again, Run: work.Every(dropEvery, func(ctx context.Context, _ *work.Progress) error {
			return r.DropDeleted(ctx)
		})},
		{Name: "mend_met", Restart: again, Run: r.mendMet},
		{Name: "mend_lost", Restart: again, Run: work.Every(mendEvery, func(ctx context.Context, _ *work.Progress) error {
			return r.MendLost(ctx)
		})},
	}
}

// DropDeleted drops the copies of what tombstones cover: of studies and series
// whenever they came, and those of a series in which an instance was deleted
// after they came. Nothing of it is the only copy.
func (r *Reader) DropDeleted(ctx context.Context) error {
	type name struct{ study, series string }
	instances := map[name]time.Time{} // when the last of a series was deleted
	any := false
	for t, err := range r.catalog.Tombstones(ctx) {
		if err != nil {
			return err
		}
		any = true
		if at := time.Unix(t.Tick, 0); t.Instance != "" && at.After(instances[name{t.Study, t.Series}]) {
			instances[name{t.Study, t.Series}] = at
		}
	}
	if !any {
		return nil
	}
	return r.o.Copies.DropIf(func(study, series string, when time.Time) bool {
		return r.gone(study, series, "") || when.Before(instances[name{study, series}])
	})
}
