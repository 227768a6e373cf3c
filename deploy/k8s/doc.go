// Package k8s has no code: it holds the manifests for Kubernetes and the tests of them. README.md
// beside it is for people.
//
// The tests render every kustomization as kubectl does, decode the result strictly, and check what
// each pod must keep to. They start the program to see that it takes the configuration, and that
// each metric that an alert or a panel names is one that it exports. They need no cluster and no
// network.
package k8s
