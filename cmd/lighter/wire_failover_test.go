package main

import (
	"context"
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestServerList(t *testing.T) {
	told := []string{"10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443"}
	beside := joinable{url: "https://10.0.0.2:6443", newToken: func(context.Context) (string, error) { return "", nil }}
	if list := serverList(beside, "host-2", told); list[0] != "10.0.0.2:6443" || len(list) != 3 {
		t.Errorf("beside a server: %v", list)
	}
	if list := serverList(beside, "host-2", told[:1]); !slices.Equal(list, []string{"10.0.0.2:6443", "10.0.0.1:6443"}) {
		t.Errorf("beside a server that is not announced yet: %v", list)
	}
	firsts := map[string]int{}
	for _, node := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		list := serverList(joinable{url: "https://10.0.0.1:6443"}, node, told)
		if !slices.Equal(list, serverList(joinable{url: "https://10.0.0.1:6443"}, node, []string{told[2], told[0], told[1]})) {
			t.Errorf("%s: the order depends on how it was told", node)
		}
		if len(list) != 3 {
			t.Errorf("%s: %v", node, list)
		}
		firsts[list[0]]++
	}
	if len(firsts) != 3 {
		t.Errorf("all hosts ask the same server first: %v", firsts)
	}
	for url, want := range map[string]string{"https://lb.example": "lb.example:443", "https://lb.example:6443": "lb.example:6443", "https://[fd00::1]": "[fd00::1]:443"} {
		list := serverList(joinable{url: url}, "a", told)
		if len(list) != 4 || list[3] != want {
			t.Errorf("started with %s: %v", url, list)
		}
	}
	if list := serverList(joinable{url: "https://10.0.0.1:6443"}, "a", nil); !slices.Equal(list, told[:1]) {
		t.Errorf("nobody told anything: %v", list)
	}
}

func TestServersIn(t *testing.T) {
	port, no := int32(6443), false
	slice := &discoveryv1.EndpointSlice{
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"10.0.0.2"}},
			{Addresses: []string{"10.0.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		},
		Ports: []discoveryv1.EndpointPort{{Port: &port}},
	}
	if got := serversIn(slice); !slices.Equal(got, []string{"10.0.0.1:6443", "10.0.0.2:6443"}) {
		t.Errorf("%v", got)
	}
}
