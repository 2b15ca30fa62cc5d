// Package netns is the overlay's contract with the kernel: links, addresses,
// routes, neighbours, forwarding entries and sysctls of one network namespace.
//
//   - types.go   the vocabulary: comparable, printable values
//   - kernel.go  the contract (interface Kernel) and its errors
//   - real*.go   the implementation over rtnetlink (vishvananda/netlink); one
//     socket per namespace, opened once, so that no call switches threads but
//     sysctls, which the kernel resolves by the calling thread's namespace
//   - fake*.go   a working in-memory kernel that refuses what Linux refuses
//
// The suite in netns/netnstest runs on both.
package netns
