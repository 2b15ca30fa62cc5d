// Package meettest orders what a test and the loop that it watches do, for the race
// detector. In a synctest bubble they never run at the same time, but time alone,
// which synctest makes, tells the detector nothing.
package meettest

import "sync/atomic"

var turns atomic.Int64

// Meet makes all that was done before other calls of it visible. Both sides call it
// before they touch what they share, and after.
func Meet() { turns.Add(1) }
