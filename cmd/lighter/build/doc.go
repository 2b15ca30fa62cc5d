// Package build is what "lighter build" does around the build itself, which the
// caller hands in: from "docker build"'s arguments to an Image object and back.
//
//   - context.go: what is built: a folder, a repository, a URL, standard input.
//   - archive.go: a tar archive becomes a folder, safely.
//   - names.go: which Image object declares the names (pure).
//   - run.go: declare, build, move names, push, print.
package build
