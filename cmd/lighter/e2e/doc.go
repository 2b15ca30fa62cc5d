// Package e2e holds the end-to-end tests: the real binary, a real cluster of
// three hosts on this machine, which all tests share, and what a user sees of it.
//
//	make e2e                              builds and runs them all
//	LIGHTER_E2E=1 go test ./cmd/lighter/e2e -run Guestbook -v
//
// LIGHTER_E2E_KEEP=1 leaves the cluster running after the tests ("lighter local
// --name e2e …" then works on it), and the next run takes it as it is.
//
// frame_test.go has the cluster and what tests are written with: a namespace of
// their own, lighter, hostExec, eventually. A test that kills or cuts hosts has
// to mend them before it ends (t.Cleanup).
package e2e
