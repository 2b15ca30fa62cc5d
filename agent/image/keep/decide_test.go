package keep

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/api/rendezvous"
)

const shop = "docker.io/library/shop:latest"

var (
	d1 = digest.FromString("one")
	d2 = digest.FromString("two")
)

// first is the host among nodes that fetches a digest first.
func first(dgst digest.Digest, nodes ...string) string {
	rendezvous.Rank(dgst.String(), nodes)
	return nodes[0]
}

func TestDecide(t *testing.T) {
	chosen := first(d1, "b", "c")
	other := map[string]string{"b": "c", "c": "b"}[chosen]
	name := Name{"team", shop, d1}
	image := Image{Namespace: "team", Names: []string{shop}, Digest: d1, Node: "a"}
	abc := []string{"a", "b", "c"}
	held := map[digest.Digest]bool{d1: true}
	now := time.Now()
	since := func(ago time.Duration) map[digest.Digest]time.Time {
		return map[digest.Digest]time.Time{d1: now.Add(-ago)}
	}
	tests := []struct {
		name string
		view View
		want Plan
	}{
		{"nothing", View{Self: "a", Synced: true}, Plan{}},
		{"just built: the second host fetches", View{Self: chosen, Nodes: abc, Images: []Image{image}}, Plan{Fetch: []Name{name}}},
		{"the third does not", View{Now: now, Self: other, Nodes: abc, Images: []Image{image}}, Plan{Next: now.Add(patience)}},
		{"nor before the second has had its time", View{Now: now, Self: other, Nodes: abc, Images: []Image{image}, Lacking: since(patience - 1)}, Plan{Next: now.Add(1)}},
		{"it steps in for the second", View{Now: now, Self: other, Nodes: abc, Images: []Image{image}, Lacking: since(patience)}, Plan{Fetch: []Name{name}}},
		{"which has come so far in the end", View{Now: now, Self: other, Nodes: abc, Images: []Image{image}, Lacking: since(time.Hour), Holders: map[digest.Digest][]string{d1: {"a", chosen}}}, Plan{}},
		{"the builder has it", View{Self: "a", Nodes: abc, Images: []Image{image}, Held: held, Records: []Record{{Name: name}}}, Plan{}},
		{"two hold it", View{Self: chosen, Nodes: abc, Images: []Image{image}, Holders: map[digest.Digest][]string{d1: {"a", other}}}, Plan{}},
		{"one of two is lost", View{Self: chosen, Nodes: []string{chosen, "a"}, Images: []Image{image}, Holders: map[digest.Digest][]string{d1: {"a", other}}}, Plan{Fetch: []Name{name}}},
		{"the builder is lost", View{Self: other, Nodes: []string{"b", "c"}, Images: []Image{image}, Holders: map[digest.Digest][]string{d1: {chosen}}}, Plan{Fetch: []Name{name}}},
		{"all are lost", View{Self: chosen, Nodes: []string{"b", "c"}, Images: []Image{image}}, Plan{}},
		{"the only host", View{Self: "a", Nodes: []string{"a"}, Images: []Image{image}, Held: held, Records: []Record{{Name: name}}}, Plan{}},
		{"not built yet", View{Self: chosen, Nodes: abc, Images: []Image{{Namespace: "team", Names: []string{shop}}}}, Plan{}},
		{"content that was pulled gets the record", View{Self: "c", Nodes: abc, Images: []Image{image}, Held: held}, Plan{Record: []Name{name}}},
		{"its name meant another version", View{Self: "c", Nodes: abc, Images: []Image{image}, Held: held, Records: []Record{{Name: Name{"team", shop, d2}}}}, Plan{Record: []Name{name}}},
		{"only the version is noted", View{Self: "c", Nodes: abc, Images: []Image{image}, Held: held, Records: []Record{{Name: name, Version: true}}}, Plan{Record: []Name{name}}},
		{"a name was added", View{Self: "c", Nodes: abc, Held: held, Records: []Record{{Name: name}},
			Images: []Image{{Namespace: "team", Names: []string{shop, "shop:v1"}, Digest: d1, Node: "a"}}}, Plan{Record: []Name{{"team", "shop:v1", d1}}}},
		{"another namespace claims the same name", View{Self: "a", Nodes: abc, Synced: true, Held: held, Records: []Record{{Name: name}},
			Images: []Image{{Namespace: "other", Names: []string{shop}}}}, Plan{Gone: []Record{{Name: name}}}},
		{"Image gone", View{Self: "a", Nodes: abc, Synced: true, Held: held, Records: []Record{{Name: name}, {Name: name, Version: true}}},
			Plan{Gone: []Record{{Name: name}, {Name: name, Version: true}}}},
		{"Images not known", View{Self: "a", Nodes: abc, Held: held, Records: []Record{{Name: name}}}, Plan{}},
		{"a container uses it", View{Self: "a", Nodes: abc, Synced: true, Held: held, Used: held, Records: []Record{{Name: name}}}, Plan{}},
		{"an older version of an Image that is there", View{Self: "a", Nodes: abc, Synced: true, Images: []Image{image}, Held: held,
			Records: []Record{{Name: name}, {Name: Name{"team", shop, d2}, Version: true}}}, Plan{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decide(tt.view); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestPlacement: whatever hosts there are, exactly as many fetch as are missing,
// all see it alike, the copies spread, and a host that leaves moves its own alone.
func TestPlacement(t *testing.T) {
	nodes := []string{"host-1", "host-2", "host-3", "host-4", "host-5"}
	load := map[string]int{}
	place := func(dgst digest.Digest, nodes []string) []string {
		var found []string
		for _, self := range nodes[1:] {
			view := View{Self: self, Nodes: nodes, Images: []Image{{Namespace: "n", Names: []string{shop}, Digest: dgst, Node: nodes[0]}}}
			if len(decide(view).Fetch) > 0 {
				found = append(found, self)
			}
		}
		return found
	}
	const images = 400
	for i := range images {
		dgst := digest.FromString(fmt.Sprint(i))
		got := place(dgst, nodes)
		if len(got) != copies-1 {
			t.Fatalf("%d hosts fetch: %v", len(got), got)
		}
		load[got[0]]++
		if again := place(dgst, nodes[:4]); got[0] != nodes[4] && again[0] != got[0] {
			t.Errorf("%s moved from %s to %s though %s left", dgst, got[0], again[0], nodes[4])
		}
	}
	for _, node := range nodes[1:] {
		if n := load[node]; n < images/4*7/10 || n > images/4*13/10 {
			t.Errorf("%s keeps %d of %d images", node, n, images)
		}
	}
}

func TestLacking(t *testing.T) {
	now := time.Now()
	image := Image{Names: []string{shop}, Digest: d1, Node: "a"}
	since := map[digest.Digest]time.Time{d2: now}
	few := View{Now: now, Self: "b", Nodes: []string{"a", "b"}, Images: []Image{image, {Names: []string{"unbuilt"}}}}
	lacking(few, since)
	few.Now = now.Add(time.Hour)
	lacking(few, since)
	if want := map[digest.Digest]time.Time{d1: now}; !reflect.DeepEqual(since, want) {
		t.Errorf("since %v, want %v", since, want)
	}
	few.Holders = map[digest.Digest][]string{d1: {"a", "c"}}
	few.Nodes = []string{"a", "b", "c"}
	if lacking(few, since); len(since) != 0 {
		t.Errorf("since %v though two hosts hold it", since)
	}
}

func TestExpired(t *testing.T) {
	now := time.Now()
	a, b := Record{Name: Name{"n", "a", d1}}, Record{Name: Name{"n", "b", d1}}
	since := map[Record]time.Time{}
	if over, next := expired([]Record{a}, since, now); over != nil || !next.Equal(now.Add(grace)) {
		t.Errorf("at first: %v, next %s", over, next)
	}
	if over, next := expired([]Record{a, b}, since, now.Add(grace/2)); over != nil || !next.Equal(now.Add(grace)) {
		t.Errorf("before its time: %v, next %s", over, next)
	}
	if over, _ := expired([]Record{a, b}, since, now.Add(grace)); !reflect.DeepEqual(over, []Record{a}) {
		t.Errorf("in its time: %v", over)
	}
	// b came back: its time begins anew when it goes again.
	expired(nil, since, now.Add(grace))
	if over, _ := expired([]Record{b}, since, now.Add(2*grace)); over != nil {
		t.Errorf("after it came back: %v", over)
	}
}
