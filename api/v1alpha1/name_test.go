package v1alpha1

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestObjectNames(t *testing.T) {
	long := "registry.example/" + strings.Repeat("very-", 20) + "long"
	tests := []struct{ tag, plain string }{
		{"shop", "shop"},
		{"shop:latest", "shop"},
		{"docker.io/library/shop:latest", "shop"},
		{"shop:v1", "shop-v1"},
		{"shop-v1", "shop-v1"},
		{"team/shop:v1.2_RC", "team-shop-v1-2-rc"},
		{"registry.example:5000/team/shop", "registry-example-5000-team-shop"},
		{"1.2:3", "1-2-3"},
		{"shop:-", "shop"},
	}
	seen := map[string]string{}
	for _, test := range tests {
		plain, unique, err := ObjectNames(test.tag)
		if test.tag == "shop:-" {
			if err == nil {
				t.Errorf("%s: taken", test.tag)
			}
			continue
		}
		if err != nil || plain != test.plain {
			t.Errorf("%s: %q, %v, want %q", test.tag, plain, err, test.plain)
		}
		if problems := append(validation.IsDNS1123Label(plain), validation.IsDNS1123Label(unique)...); problems != nil {
			t.Errorf("%s: %q, %q: %s", test.tag, plain, unique, problems)
		}
		full, _ := NormalizeTag(test.tag)
		if other, twice := seen[unique]; twice && other != full {
			t.Errorf("%s and %s both give %s", full, other, unique)
		}
		seen[unique] = full
	}
	plain, unique, err := ObjectNames(long)
	if err != nil || plain != unique || len(plain) > 63 || validation.IsDNS1123Label(plain) != nil {
		t.Errorf("%s: %q, %q, %v", long, plain, unique, err)
	}
	for _, bad := range []string{"", "UPPER", "shop@sha256:" + strings.Repeat("0", 64)} {
		if _, _, err := ObjectNames(bad); err == nil {
			t.Errorf("%q: taken", bad)
		}
	}
}
