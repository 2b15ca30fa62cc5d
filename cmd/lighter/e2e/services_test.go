package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestServices: a server on each host, clients on two of them.
func TestServices(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	var manifest strings.Builder
	for _, host := range everyHost {
		line := "hostname > /www/index.html; httpd -p 8080 -h /www; while ! test -e /tmp/go; do sleep 0.1; done; exec /tmp/kit udp 9000"
		manifest.WriteString(strings.Replace(pod("server-"+host, line, "nodeName: "+host, "hostname: server-"+host, "subdomain: headless",
			"c readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"), "app: server-"+host, "app: server", 1) + "---\n")
	}
	for _, service := range []string{
		"name: web}\nspec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}",
		"name: sticky}\nspec: {selector: {app: server}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}",
		"name: headless}\nspec: {clusterIP: None, selector: {app: server}, ports: [{name: http, port: 8080}]}",
		"name: udp}\nspec: {selector: {app: server}, ports: [{port: 9000, protocol: UDP}]}",
		"name: alias}\nspec: {type: ExternalName, externalName: web." + ns + ".svc.cluster.local}",
		"name: empty}\nspec: {selector: {app: nobody}, ports: [{port: 80}]}",
	} {
		manifest.WriteString("apiVersion: v1\nkind: Service\nmetadata: {" + service + "\n---\n")
	}
	manifest.WriteString(pod("client", "sleep 1d", "nodeName: host-1") + "---\n" + pod("other", "sleep 1d", "nodeName: host-3"))
	create(t, ns, manifest.String())
	servers := map[string]*corev1.Pod{}
	for _, host := range everyHost {
		servers[host] = untilReady(t, ns, "server-"+host)
		giveKit(t, ns, "server-"+host)
	}
	untilReady(t, ns, "client")
	untilReady(t, ns, "other")
	giveKit(t, ns, "client")

	t.Run("balanced by name", func(t *testing.T) {
		for _, client := range []string{"client", "other"} {
			eventually(t, 20*time.Second, client+" reaches all three", func() error { return reach(t, ns, client, "web", 24, 3) })
		}
	})
	t.Run("session affinity", func(t *testing.T) {
		eventually(t, 20*time.Second, "one server for one client", func() error { return reach(t, ns, "client", "sticky", 12, 1) })
	})
	t.Run("hairpin", func(t *testing.T) {
		eventually(t, 20*time.Second, "a server reaches all, itself too", func() error { return reach(t, ns, "server-host-2", "web", 24, 3) })
	})
	t.Run("udp", func(t *testing.T) {
		eventually(t, 20*time.Second, "all three answer datagrams", func() error {
			out, err := inPod(t, ns, "client", "/tmp/kit ask"+strings.Repeat(" udp:9000", 24))
			if answers := distinct(out); err != nil || len(answers) != 3 {
				return fmt.Errorf("%v answer, %w", answers, err)
			}
			return nil
		})
	})
	t.Run("no endpoints: refused, not lost", func(t *testing.T) {
		eventually(t, 20*time.Second, "it is refused", func() error {
			if out, err := inPod(t, ns, "client", "nc -w 30 empty 80 < /dev/null"); err == nil || !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("%q, %w", out, err)
			}
			return nil
		})
	})
	t.Run("dns", func(t *testing.T) { testDNS(t, ns, servers) })
	t.Run("endpoints follow", func(t *testing.T) {
		lighter(t, "delete", "-n", ns, "pod/server-host-1", "--timeout=180s")
		eventually(t, 30*time.Second, "two are left", func() error { return reach(t, ns, "client", "web", 24, 2) })
	})
}

// reach fetches a page several times and wants answers of n servers.
func reach(t *testing.T, ns, from, service string, times, n int) error {
	out, err := inPod(t, ns, from, fmt.Sprintf("for i in $(seq %d); do fetch %s 80 || echo failed; done", times, service))
	if answers := distinct(out); err != nil || len(answers) != n || slices.Contains(answers, "failed") {
		return fmt.Errorf("%v answer, %w", answers, err)
	}
	return nil
}

func distinct(lines string) []string {
	all := strings.Fields(lines)
	slices.Sort(all)
	return slices.Compact(all)
}

func testDNS(t *testing.T, ns string, servers map[string]*corev1.Pod) {
	web := lighter(t, "get", "service/web", "-n", ns, "-o", "jsonpath={.spec.clusterIP}")
	var ips []string
	for _, server := range servers {
		ips = append(ips, server.Status.PodIP)
	}
	pod2 := servers["host-2"].Status.PodIP
	for _, question := range []struct {
		line  string
		wants []string
	}{
		{"nslookup web." + ns + ".svc.cluster.local", []string{web}},
		{"nslookup -type=a headless." + ns + ".svc.cluster.local", ips},
		{"nslookup server-host-2.headless." + ns + ".svc.cluster.local", []string{pod2}},
		{"nslookup -type=srv _http._tcp.web." + ns + ".svc.cluster.local", []string{"80 web." + ns + ".svc.cluster.local"}},
		{"nslookup -type=srv _http._tcp.headless." + ns + ".svc.cluster.local", []string{"8080 server-host-2.headless." + ns + ".svc.cluster.local"}},
		{"nslookup -type=cname alias." + ns + ".svc.cluster.local", []string{"web." + ns + ".svc.cluster.local"}},
		{"nslookup " + web, []string{"web." + ns + ".svc.cluster.local"}},
		{"nslookup nobody." + ns + ".svc.cluster.local || true", []string{"NXDOMAIN"}},
		{"nslookup kubernetes.default.svc.cluster.local", []string{"10.43.0.1"}},
		{"cat /etc/resolv.conf", []string{"search " + ns + ".svc.cluster.local svc.cluster.local cluster.local", "ndots:5", "nameserver 10.42."}},
	} {
		var out string
		eventually(t, 20*time.Second, question.line, func() error {
			var err error
			if out, err = inPod(t, ns, "client", question.line); err != nil {
				return err
			}
			for _, want := range question.wants {
				if !strings.Contains(out, want) {
					return fmt.Errorf("no %q in\n%s", want, out)
				}
			}
			return nil
		})
	}
}
