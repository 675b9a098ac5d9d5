package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/record"
)

// shown asks for records and gives their queue ids.
func shown(t *testing.T, r *recent, ctx context.Context, args api.LogArgs) (ids string, result api.LogResult) {
	t.Helper()
	answer, err := r.show(ctx, args, func(v any) {
		line, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		var entries []struct {
			QueueID string `json:"queue_id"`
		}
		if err := json.Unmarshal(line, &entries); err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			ids += e.QueueID
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, answer.(api.LogResult)
}

func TestRecentIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecent()
		put := func(names string) {
			for _, c := range names {
				r.Record(&record.Record{Daemon: "policyd", QueueID: string(c)}, time.Now())
			}
		}
		put("ab")
		ids, first := shown(t, r, t.Context(), api.LogArgs{})
		if ids != "ab" || first.Next != 2 || first.Lost != 0 || first.Run == "" {
			t.Errorf("got %q, %+v", ids, first)
		}
		if ids, _ := shown(t, r, t.Context(), api.LogArgs{After: 1, Run: "another process"}); ids != "ab" {
			t.Errorf("after a restart: %q", ids)
		}
		wait := api.LogArgs{After: first.Next, Run: first.Run, Wait: true}
		go func() {
			time.Sleep(logWait / 2) // of the bubble
			put("c")
		}()
		if ids, next := shown(t, r, t.Context(), wait); ids != "c" || next.Next != 3 {
			t.Errorf("waited for %q, %+v", ids, next)
		}
		wait.After = 3
		for name, end := range map[string]func(cancel func()){
			"no record comes":     func(func()) {},
			"the client is gone":  func(cancel func()) { cancel() },
			"the process leaves":  func(func()) { close(r.leaving) },
			"it has left already": func(func()) {},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			go end(cancel)
			if ids, next := shown(t, r, ctx, wait); ids != "" || next.Next != 3 {
				t.Errorf("%s: got %q, %+v", name, ids, next)
			}
			cancel()
		}
	})
}

// Records of any number and size come in lines that a client reads.
func TestRecentComesInParts(t *testing.T) {
	r := newRecent()
	for range 2000 {
		r.Record(&record.Record{Daemon: "policyd", Helo: string(bytes.Repeat([]byte("x"), 1000)), QueueID: "1"}, time.Now())
	}
	parts, total := 0, 0
	_, err := r.show(t.Context(), api.LogArgs{}, func(v any) {
		line, err := json.Marshal(v)
		if err != nil || len(line) > 2*logBatchBytes {
			t.Errorf("%d octets, %v", len(line), err)
		}
		parts++
		total += len(v.(api.LogLines))
	})
	if err != nil || total != 2000 || parts < 5 {
		t.Error(fmt.Sprint(parts, " parts, ", total, " records, ", err))
	}
}
