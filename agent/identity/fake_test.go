package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"lighter.dev/lighter/api/jointoken"
)

// testCA is a certificate authority.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

var serials struct {
	sync.Mutex
	last int64
}

func serial() *big.Int {
	serials.Lock()
	defer serials.Unlock()
	serials.last++
	return big.NewInt(serials.last)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "test-ca"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign issues the certificate that from asks for.
func (ca *testCA) sign(from *x509.CertificateRequest, begin, end time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: from.Subject, DNSNames: from.DNSNames, IPAddresses: from.IPAddresses,
		NotBefore: begin, NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, from.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// pair is a certificate with its key.
func (ca *testCA) pair(t *testing.T, name string, begin, end time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	certPEM, err := ca.sign(&x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, PublicKey: key.Public(), DNSNames: []string{serverName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, begin, end)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// fakeAPI serves /cacerts and certificate requests. What clients see is the real
// thing: TLS, authentication by token or certificate, and a decision that comes
// only once they watch.
type fakeAPI struct {
	*httptest.Server
	t     *testing.T
	ca    *testCA
	token jointoken.Token

	mu       sync.Mutex
	life     time.Duration // of the certificates that are signed
	bundle   []byte        // what /cacerts says
	deny     string        // if set, the reason to deny
	refuse   int           // so many tokens are refused though they are right
	requests []*certificatesv1.CertificateSigningRequest
	down     bool // answers 503 to everything
	hits     int
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	ca := newCA(t)
	token, err := jointoken.New(ca.pem, "abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAPI{t: t, ca: ca, token: token, life: time.Hour, bundle: ca.pem}
	f.serve(ca)
	return f
}

// serve starts the server with a certificate of the given CA.
func (f *fakeAPI) serve(ca *testCA) {
	cert, err := tls.X509KeyPair(ca.pair(f.t, "server", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	if err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(f.ca.cert)
	f.Server = httptest.NewUnstartedServer(f.mux())
	f.EnableHTTP2 = true
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	f.StartTLS()
	f.t.Cleanup(f.stop)
}

// stop ends the server, watches included. It may be called twice.
func (f *fakeAPI) stop() {
	f.CloseClientConnections()
	f.Close()
}

func (f *fakeAPI) mux() http.Handler {
	const csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, _ = w.Write(f.bundle)
	})
	mux.HandleFunc("POST "+csrs, f.authenticated(f.create))
	mux.HandleFunc("GET "+csrs, f.authenticated(f.list))
	mux.HandleFunc("GET "+csrs+"/{name}", f.authenticated(func(w http.ResponseWriter, r *http.Request, _ string) {
		if request := f.find(r.PathValue("name")); request != nil {
			reply(w, http.StatusOK, request)
			return
		}
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.hits++
		down := f.down
		f.mu.Unlock()
		if down {
			fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "not ready")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (f *fakeAPI) authenticated(next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user := f.user(r); user != "" {
			next(w, r, user)
			return
		}
		fail(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
	}
}

func (f *fakeAPI) user(r *http.Request) string {
	if len(r.TLS.PeerCertificates) > 0 {
		return r.TLS.PeerCertificates[0].Subject.CommonName
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+f.token.Bearer() {
		return ""
	}
	if f.refuse > 0 {
		f.refuse--
		return ""
	}
	return "system:bootstrap:" + f.token.ID
}

func (f *fakeAPI) create(w http.ResponseWriter, r *http.Request, user string) {
	text, err := io.ReadAll(r.Body)
	request := &certificatesv1.CertificateSigningRequest{}
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(text, nil, request)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	request.Name = fmt.Sprintf("%s%d", request.GenerateName, len(f.requests))
	request.UID = types.UID(request.Name)
	request.ResourceVersion = "1"
	request.CreationTimestamp = metav1.Now()
	request.Spec.Username = user
	f.requests = append(f.requests, request)
	reply(w, http.StatusCreated, request)
}

func (f *fakeAPI) find(name string) *certificatesv1.CertificateSigningRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, request := range f.requests {
		if request.Name == name {
			return request.DeepCopy()
		}
	}
	return nil
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, _ string) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	request := f.find(name)
	if request == nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "no request "+name)
		return
	}
	if r.URL.Query().Get("watch") == "" {
		reply(w, http.StatusOK, &certificatesv1.CertificateSigningRequestList{
			ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []certificatesv1.CertificateSigningRequest{*request},
		})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		event(w, "ADDED", request)
		mark := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}
		event(w, "BOOKMARK", mark)
	}
	if err := f.decide(name); err != nil {
		event(w, "ERROR", &metav1.Status{Status: metav1.StatusFailure, Message: err.Error()})
		return
	}
	event(w, "MODIFIED", f.find(name))
	<-r.Context().Done()
}

// decide signs or denies a request, once.
func (f *fakeAPI) decide(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var request *certificatesv1.CertificateSigningRequest
	for _, request = range f.requests {
		if request.Name == name {
			break
		}
	}
	if len(request.Status.Conditions) > 0 {
		return nil
	}
	request.ResourceVersion = "2"
	condition := certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}
	if f.deny != "" {
		condition.Type, condition.Reason, condition.Message = certificatesv1.CertificateDenied, "AgentDenied", f.deny
		request.Status.Conditions = append(request.Status.Conditions, condition)
		return nil
	}
	asked, err := asked(request)
	if err != nil {
		return err
	}
	now := time.Now()
	request.Status.Certificate, err = f.ca.sign(asked, now, now.Add(f.life))
	request.Status.Conditions = append(request.Status.Conditions, condition)
	return err
}

// asked is what a request wants to have signed.
func asked(request *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(request.Spec.Request)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return parsed, parsed.CheckSignature()
}

// set changes how the server behaves.
func (f *fakeAPI) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// count is how many requests there were, of any kind.
func (f *fakeAPI) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// asks are the requests for a signer so far.
func (f *fakeAPI) asks(signer string) []*certificatesv1.CertificateSigningRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*certificatesv1.CertificateSigningRequest
	for _, request := range f.requests {
		if request.Spec.SignerName == signer {
			found = append(found, request.DeepCopy())
		}
	}
	return found
}

func encoded(obj runtime.Object) []byte {
	var out bytes.Buffer
	codec := scheme.Codecs.LegacyCodec(certificatesv1.SchemeGroupVersion, corev1.SchemeGroupVersion)
	if err := codec.Encode(obj, &out); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func reply(w http.ResponseWriter, code int, obj runtime.Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(encoded(obj))
}

func fail(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	reply(w, int(code), &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message})
}

func event(w http.ResponseWriter, kind string, obj runtime.Object) {
	text, err := json.Marshal(map[string]any{"type": kind, "object": json.RawMessage(encoded(obj))})
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(append(text, '\n'))
	w.(http.Flusher).Flush()
}
