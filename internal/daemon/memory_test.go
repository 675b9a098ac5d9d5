package daemon

import (
	"math"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/fstest"
)

func TestPlanMemory(t *testing.T) {
	const gib = 1 << 30
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	v2 := func(limits map[string]string) fstest.MapFS {
		root := fstest.MapFS{"proc/self/cgroup": file("0::/system.slice/postern.service\n")}
		for dir, limit := range limits {
			root["sys/fs/cgroup/"+dir+"memory.max"] = file(limit)
		}
		return root
	}
	tests := []struct {
		name string
		root fstest.MapFS
		env  map[string]string
		want Memory
	}{
		{"no cgroups", fstest.MapFS{}, nil, Memory{400, gib}},
		{"v2 without limit", v2(map[string]string{"system.slice/postern.service/": "max\n"}), nil, Memory{400, gib}},
		{"v2 limit", v2(map[string]string{"system.slice/postern.service/": "100000000\n"}), nil, Memory{400, 50000000}},
		{"v2 parent is tighter", v2(map[string]string{"system.slice/postern.service/": "200000000\n", "system.slice/": "100000000\n"}), nil, Memory{400, 50000000}},
		{"v2 in a container", v2(map[string]string{"": "100000000\n"}), nil, Memory{400, 50000000}},
		{"v2 with room outside the heap", v2(map[string]string{"": "250000000\n"}), nil, Memory{400, 250000000 - outsideHeap}},
		{"v2 large", v2(map[string]string{"": "1000000000\n"}), nil, Memory{400, 800000000}},
		{"v2 above ours", v2(map[string]string{"": "100000000000\n"}), nil, Memory{400, gib}},
		{"v2 nonsense", v2(map[string]string{"": "-5\n", "system.slice/": "x"}), nil, Memory{400, gib}},
		{"v1", fstest.MapFS{
			"proc/self/cgroup": file("4:memory:/a/b\n3:cpu,cpuacct:/c\nbroken\n0::/\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   file("100000000\n"),
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, nil, Memory{400, 50000000}},
		{"GOGC is the operator's", fstest.MapFS{}, map[string]string{"GOGC": "50"}, Memory{0, gib}},
		{"GOMEMLIMIT is the operator's", v2(map[string]string{"": "1"}), map[string]string{"GOMEMLIMIT": "1GiB"}, Memory{400, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := planMemory(tt.root, func(key string) string { return tt.env[key] })
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if small := tt.want.Limit == 50000000; got.Small() != small {
				t.Errorf("%+v is small: %v", got, !small)
			}
		})
	}
}

func TestTuneMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	got := TuneMemory()
	if in := debug.SetGCPercent(percent); in != 400 || got.GCPercent != in {
		t.Errorf("GC percent %d in force, %d told", in, got.GCPercent)
	}
	if in := debug.SetMemoryLimit(limit); in <= 0 || in > memoryLimit || got.Limit != in {
		t.Errorf("memory limit %d in force, %d told", in, got.Limit)
	}
}

// A store of more than the usual size raises the limit by what it takes beyond that, but
// never above what the cgroup or the operator allows.
func TestMemoryForAStore(t *testing.T) {
	const gib = 1 << 30
	small := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("1000000000\n")},
	}
	for _, tt := range []struct {
		name  string
		root  fstest.MapFS
		limit string
		store int64
		want  int64
	}{
		{"usual size", fstest.MapFS{}, "", gib / 2, gib},
		{"larger", fstest.MapFS{}, "", 3 * gib, gib + 3*gib - gib/2},
		{"beyond the cgroup", small, "", 3 * gib, 800000000},
		{"the operator's", fstest.MapFS{}, "1GiB", 3 * gib, 0},
	} {
		env := func(name string) string { return map[string]string{"GOMEMLIMIT": tt.limit}[name] }
		if got := limitFor(tt.root, env, tt.store); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// The usual store fits under the usual limit, and so does a larger one, which raises it. A
// limit of the cgroup bounds them.
func TestRoomForAStore(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct{ store, group, want int64 }{
		{320 * mib, math.MaxInt64, 320 * mib},
		{4096 * mib, math.MaxInt64, 4096 * mib},
		{320 * mib, 1024 * mib, 320 * mib},
		{320 * mib, 256 * mib, 88 * mib},
		{16 * mib, 64 * mib, 16 * mib},
		{320 * mib, 64 * mib, 16 * mib},
	} {
		root := fstest.MapFS{
			"proc/self/cgroup":         {Data: []byte("0::/\n")},
			"sys/fs/cgroup/memory.max": {Data: []byte(strconv.FormatInt(tt.group, 10))},
		}
		limit := limitFor(root, func(string) string { return "" }, tt.store)
		if got := roomFor(tt.store, limit); got/mib != tt.want/mib {
			t.Errorf("a store of %d MiB in a group of %d MiB has %d MiB, want %d", tt.store/mib, tt.group/mib, got/mib, tt.want/mib)
		}
	}
}

func TestShareOfAStore(t *testing.T) {
	for limit, want := range map[int64]int{math.MaxInt64: 300_000, 1 << 30: 300_000, 512 << 20: 300_000, 64 << 20: 37_500} {
		if got := shareOf(300_000, limit); got != want {
			t.Errorf("under a limit of %d: %d entries, want %d", limit, got, want)
		}
	}
}
