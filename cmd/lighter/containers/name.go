package containers

import "math/rand/v2"

// The words of names that are made up: of the weather and of the harbour.
var (
	qualities = []string{
		"amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "clear", "crisp", "dapper", "deep", "eager",
		"early", "fair", "fleet", "foggy", "gentle", "golden", "grand", "happy", "hardy", "hazy", "jolly", "keen",
		"light", "lively", "lucky", "mellow", "merry", "misty", "nimble", "noble", "placid", "proud", "quick", "quiet",
		"ready", "rosy", "salty", "serene", "sharp", "silent", "silver", "steady", "stormy", "sunny", "swift", "windy",
	}
	vessels = []string{
		"anchor", "barge", "beacon", "bollard", "brig", "buoy", "canoe", "caravel", "clipper", "cog", "compass", "coracle",
		"crane", "cutter", "dhow", "dinghy", "dock", "dory", "ferry", "frigate", "galley", "gull", "harbour", "hawser",
		"hulk", "jetty", "junk", "kayak", "keel", "ketch", "knot", "launch", "lugger", "mast", "mooring", "oar",
		"packet", "pier", "pilot", "punt", "quay", "raft", "rudder", "sampan", "schooner", "skiff", "sloop", "tug",
	}
)

// madeUp is a name for a container without one. Two may be the same: the API
// tells.
func madeUp() string {
	return qualities[rand.IntN(len(qualities))] + "-" + vessels[rand.IntN(len(vessels))]
}
