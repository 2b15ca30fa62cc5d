// Package apply is what "lighter apply" does: server-side apply (KEP-555) of
// manifests, with the images they are made of built on the way.
//
//  1. load.go reads the manifests; nothing is sent yet.
//  2. check.go finds mistakes in all of them: keys given twice, build folders
//     that are not there, and by a dry run with strict field validation whatever
//     the server would refuse. One mistake, and nothing is applied.
//  3. run.go applies namespaces, then Images, then the rest in the order of
//     order.go. adopt.go takes over what other verbs have set. fill.go sees to an Image's content: it builds folders, and waits
//     for what the cluster builds; content.go judges what it sees (a pure function).
//     images.go keeps the digests.
//  4. watch.go follows the Deployments, rollout.go judges what it sees (a pure
//     function) and says what goes on, address.go where the result answers.
package apply
