// Package cgroup makes, limits, measures, empties and removes control groups on
// cgroup v2 (unified), v1 (legacy) and v1 with an extra v2 mount (hybrid).
//
// A [Tree] stands for everything below one root such as "/lighter". Paths that
// it takes and gives are those of the OCI runtime-spec's cgroupsPath: absolute,
// relative to the cgroup file system. Under v1 one path means a directory in
// every mounted hierarchy.
//
// Only pod cgroups are made here; a container's own one is made by the OCI
// runtime and removed here. systemd is not asked: as with the kubelet's cgroupfs
// driver, the root has to be a delegated subtree or out of systemd's sight.
package cgroup
