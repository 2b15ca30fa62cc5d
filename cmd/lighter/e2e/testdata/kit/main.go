// Command kit does what busybox cannot, for tests: a gRPC health service, and
// an echo over UDP that says which host answered.
//
//	kit grpc PORT       SERVING, until the file /tmp/sick exists
//	kit udp PORT        answers each datagram with the host's name
//	kit ask ADDR...     sends a datagram to each and prints the answers
//	kit flood MEGABYTES takes memory and keeps it
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "grpc":
		listener, err := net.Listen("tcp", ":"+args[0])
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(server, health{})
		return server.Serve(listener)
	case "udp":
		return echo(args[0])
	case "ask":
		for _, addr := range args {
			if err := ask(addr); err != nil {
				return err
			}
		}
		return nil
	case "flood":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		memory := make([]byte, n<<20)
		for i := range memory {
			memory[i] = byte(i)
		}
		fmt.Println("took", len(memory))
		select {}
	}
	return fmt.Errorf("unknown verb %s", verb)
}

type health struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (health) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if _, err := os.Stat("/tmp/sick"); err == nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return &grpc_health_v1.HealthCheckResponse{Status: status}, nil
}

func echo(port string) error {
	conn, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo([]byte(name), from); err != nil {
			return err
		}
	}
}

func ask(addr string) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("who")); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	n, err := conn.Read(buffer)
	if err != nil {
		return err
	}
	fmt.Println(string(buffer[:n]))
	return nil
}
