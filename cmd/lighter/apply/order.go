package apply

// kindOrder has first what others refer to. Kubernetes needs no order, apart
// from namespaces, but pods that find all they name start sooner, and without
// events that alarm people.
var kindOrder = []string{
	"Namespace", "CustomResourceDefinition", "PriorityClass", "StorageClass",
	"ConfigMap", // an Image may be built from one
	"Image",
	"ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding",
	"ResourceQuota", "LimitRange", "Secret", "PersistentVolume", "PersistentVolumeClaim",
	"Service", "NetworkPolicy",
}

// rank is an object's place in the order; workloads and unknown kinds come last.
func rank(o object) int {
	for i, kind := range kindOrder {
		if o.Mapping.GroupVersionKind.Kind == kind {
			return i
		}
	}
	return len(kindOrder)
}
