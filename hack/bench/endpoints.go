package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	changes     = 100
	servicePort = 80
	// glance is how long a host waits between two looks at its data plane.
	glance = time.Millisecond
)

// measureEndpoints moves a Service without selector between two servers of our
// own, and connects to its address from every host until the other one answers.
// A change counts from the request until the last host has seen it.
func measureEndpoints(ctx context.Context, b *bench) error {
	if err := b.need(ctx, 3); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the hosts' threads
	var ports [2]int32
	for i := range ports {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(b.cluster.Gateway().String(), "0"))
		if err != nil {
			return err
		}
		defer listener.Close()
		ports[i] = int32(listener.Addr().(*net.TCPAddr).Port)
		go answer(listener, byte(i))
	}
	address, err := b.movable(ctx, ports[0])
	if err != nil {
		return err
	}
	var watchers []*dataPlane
	for _, host := range b.cluster.Hosts {
		watchers = append(watchers, watchDataPlane(ctx, b.netns(host.Name), address))
	}
	var took []float64
	for i := range changes + 1 {
		start := time.Now()
		if err := b.move(ctx, ports[i%2]); err != nil {
			return err
		}
		if err := allSee(ctx, watchers, byte(i%2)); err != nil {
			return err
		}
		if i > 0 { // the first one waits for the Service itself
			took = append(took, milliseconds(time.Since(start)))
		}
	}
	b.results.set(endpoints, percentile(took, 99), "%d changes, until TCP through the ClusterIP meets the new endpoint on all 3 hosts; p50 %.0f ms", changes, median(took))
	return nil
}

// answer says who it is to everybody who connects.
func answer(listener net.Listener, name byte) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		_, _ = conn.Write([]byte{name})
		conn.Close()
	}
}

const movableName = "movable"

// movable makes the Service and its EndpointSlice; it returns where to connect.
func (b *bench) movable(ctx context.Context, port int32) (string, error) {
	service, err := b.client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: movableName},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: servicePort}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	_, err = b.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, b.slice(port), metav1.CreateOptions{})
	return net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(servicePort)), err
}

func (b *bench) slice(port int32) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: movableName, Labels: map[string]string{discoveryv1.LabelServiceName: movableName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{b.cluster.Gateway().String()}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new(""), Port: new(port), Protocol: new(corev1.ProtocolTCP)}},
	}
}

func (b *bench) move(ctx context.Context, port int32) error {
	_, err := b.client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, b.slice(port), metav1.UpdateOptions{})
	return err
}

// dataPlane watches what a Service's address leads to, as one host sees it.
type dataPlane struct {
	want chan byte
	seen chan error
}

// watchDataPlane runs in a thread of its own, which is in the host's network
// namespace and ends with it.
func watchDataPlane(ctx context.Context, netns, address string) *dataPlane {
	d := &dataPlane{make(chan byte), make(chan error, 1)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve others
		err := enterNetns(netns)
		for {
			select {
			case <-ctx.Done():
				return
			case want := <-d.want:
				if err == nil {
					err = awaitAnswer(ctx, address, want)
				}
				d.seen <- err
			}
		}
	}()
	return d
}

func enterNetns(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

func awaitAnswer(ctx context.Context, address string, want byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		have, err := ask(ctx, address)
		if err == nil && have == want {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not lead to the new endpoint: %w", address, errors.Join(ctx.Err(), err))
		}
		if err := pause(ctx, glance); err != nil {
			continue // one more look
		}
	}
}

// ask connects once. The address is an IP, so the socket is made in this thread.
func ask(ctx context.Context, address string) (byte, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	var name [1]byte
	_, err = io.ReadFull(conn, name[:])
	return name[0], err
}

// allSee waits until every host meets the wanted endpoint.
func allSee(ctx context.Context, watchers []*dataPlane, want byte) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range watchers {
		group.Go(func() error {
			select {
			case d.want <- want:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-d.seen:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	return group.Wait()
}
