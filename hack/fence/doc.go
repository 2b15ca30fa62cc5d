// Package fence keeps the shape of the tree by tests: who may import whom, which
// modules we depend on, and what must not stand in the code. Each rule carries
// its reason, which a failure prints.
//
// A new dependency is one line in hack/deps.txt, with the reason why we need it.
package fence
