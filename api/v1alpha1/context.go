package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ContextOf is the build context that a ConfigMap holds: content by file name, and
// the hash by which status.contextHash tells it from others.
func ContextOf(configMap *corev1.ConfigMap) (files map[string][]byte, hash string) {
	files = make(map[string][]byte, len(configMap.Data)+len(configMap.BinaryData))
	maps.Copy(files, configMap.BinaryData)
	for name, text := range configMap.Data {
		files[name] = []byte(text)
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%q %d\n", name, len(files[name]))
		sum.Write(files[name])
	}
	return files, "sha256:" + hex.EncodeToString(sum.Sum(nil))
}
