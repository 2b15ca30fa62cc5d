package main

import (
	"math"
	"slices"
	"time"
)

// percentile is the smallest value that at least p percent of all do not exceed
// (nearest rank). There has to be at least one value.
func percentile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func median(values []float64) float64 { return percentile(values, 50) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
