package identity

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/rest"
)

// client-go renews at 70 to 90 % of a certificate's life, and looks once a second.
const shortLife = 6 * time.Second

func TestRenewal(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	f.life = shortLife
	cfg := f.config(t)
	i := mustBootstrap(t, cfg)
	run(t, i)
	awaitServing(t, i)
	firstClient, firstServing := current(t, i.client), current(t, i.serving)
	eventually(t, "both certificates are renewed twice", func() bool {
		return len(f.asks(certificatesv1.KubeAPIServerClientKubeletSignerName)) > 2 && len(f.asks(certificatesv1.KubeletServingSignerName)) > 2 &&
			current(t, i.client) != firstClient && current(t, i.serving) != firstServing
	})
	// What was asked for may be on its way yet, and what it is to replace about to expire.
	eventually(t, "the renewed certificates work", func() bool {
		who, err := talk(i.ClientTLS(), i.ServingTLS(), "n1")
		return err == nil && who == "system:node:n1"
	})
	for _, request := range f.asks(certificatesv1.KubeAPIServerClientKubeletSignerName)[1:] {
		if request.Spec.Username != "system:node:n1" {
			t.Errorf("renewal was asked for by %s", request.Spec.Username)
		}
	}
	eventually(t, "no old files, but for those of a write", func() bool { return files(t, cfg) == allFiles })
	// Others' clients find the new certificate by themselves.
	client, err := rest.HTTPClientFor(i.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a client with the renewed certificate", func() bool {
		response, err := client.Get(f.URL + "/apis/certificates.k8s.io/v1/certificatesigningrequests/csr-0")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// current identifies the certificate that is in use.
func current(t *testing.T, s *store) string {
	t.Helper()
	cert, err := s.Current()
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.String()
}

func TestServingCertificateFollowsTheAddress(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	cfg.NodeIPs = append(cfg.NodeIPs, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("fd00::2"))
	i := mustBootstrap(t, cfg)
	client := current(t, i.client)
	run(t, i)
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", "fd00::2"} {
		eventually(t, "the serving certificate names "+ip, func() bool {
			_, err := talk(i.ClientTLS(), i.ServingTLS(), ip)
			return err == nil
		})
	}
	if n := len(f.asks(certificatesv1.KubeletServingSignerName)); n != 2 {
		t.Errorf("%d requests for a serving certificate", n)
	}
	if current(t, i.client) != client {
		t.Error("the client certificate has changed too")
	}
}

// Denied at first, for the Node object does not name the address yet: asked again.
func TestServingCertificateDeniedAtFirst(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	i := mustBootstrap(t, f.config(t))
	f.set(func() { f.deny = "127.0.0.1 is not an address of node n1" })
	run(t, i)
	eventually(t, "the request is denied", func() bool {
		requests := f.asks(certificatesv1.KubeletServingSignerName)
		return len(requests) > 0 && len(requests[0].Status.Conditions) > 0
	})
	f.set(func() { f.deny = "" })
	awaitServing(t, i)
	works(t, i)
}

// An expired serving certificate is shown rather than none, but is not "ready".
func TestExpiredServingCertificate(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	plant(t, f.ca, cfg, "serving.pem", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	i := mustBootstrap(t, cfg)
	select {
	case <-i.ServingReady():
		t.Fatal("ServingReady with an expired certificate")
	default:
	}
	if cert, err := i.ServingTLS().GetCertificate(&tls.ClientHelloInfo{}); err != nil || cert == nil {
		t.Errorf("GetCertificate: %v", err)
	}
	run(t, i)
	awaitServing(t, i)
	works(t, i)
}

func TestStoreRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	i := mustBootstrap(t, cfg)
	before := current(t, i.client)
	cert, _ := f.ca.pair(t, "system:node:n1", time.Now(), time.Now().Add(time.Hour))
	_, key := f.ca.pair(t, "system:node:n1", time.Now(), time.Now().Add(time.Hour))
	if _, err := i.client.Update(cert, key); err == nil {
		t.Error("a certificate of another key was kept")
	}
	if current(t, i.client) != before || current(t, mustBootstrap(t, cfg).client) != before {
		t.Error("the old certificate is gone")
	}
}

// client-go does not wait for a renewal that is under way.
func TestNothingIsWrittenAfterRun(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	i := mustBootstrap(t, f.config(t))
	stop := run(t, i)
	awaitServing(t, i)
	stop()
	for _, s := range []*store{i.client, i.serving} {
		before := current(t, s)
		if _, err := s.Update(f.ca.pair(t, "system:node:n1", time.Now(), time.Now().Add(time.Hour))); err == nil || current(t, s) != before {
			t.Errorf("the %s certificate was replaced: %v", s.name, err)
		}
	}
}
