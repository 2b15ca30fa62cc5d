package main

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"lighter.dev/lighter/agent/build"
)

// buildOptions are the flags about building images on this host.
type buildOptions struct {
	parallelism  int
	memory, cpus string // quantities, "" is no limit
}

const (
	flagBuildParallelism = "build-parallelism"
	flagBuildMemory      = "build-memory"
	flagBuildCPUs        = "build-cpus"
)

func (o *buildOptions) addFlags(flags *pflag.FlagSet) {
	flags.IntVar(&o.parallelism, flagBuildParallelism, 0, "how many images this host builds at a time (default: one for each CPU, two at least)")
	flags.StringVar(&o.memory, flagBuildMemory, "", "memory of all RUN steps together, such as 2Gi (default: no limit)")
	flags.StringVar(&o.cpus, flagBuildCPUs, "", "CPUs of all RUN steps together, such as 1.5 (default: no limit)")
}

// check reports every wrong value at once.
func (o *buildOptions) check() error { return o.apply(&build.Config{}) }

// apply sets a builder's limits.
func (o *buildOptions) apply(cfg *build.Config) error {
	var errs flagErrors
	if o.parallelism < 0 {
		errs.wrong(flagBuildParallelism, fmt.Errorf("%d: want a number of builds, or 0 for the default", o.parallelism))
	}
	cfg.Parallelism = o.parallelism
	memory, err := limit(o.memory)
	if err == nil && memory.Sign() > 0 && memory.Value() < minBuildMemory {
		err = fmt.Errorf("%q: no program runs in less than 16Mi", o.memory)
	}
	errs.wrong(flagBuildMemory, err)
	cfg.Memory = memory.Value()
	cpus, err := limit(o.cpus)
	if err == nil && cpus.Sign() > 0 && cpus.MilliValue() < minBuildCPUs {
		err = fmt.Errorf("%q: the kernel takes 0.01 or more", o.cpus)
	}
	errs.wrong(flagBuildCPUs, err)
	cfg.MilliCPUs = cpus.MilliValue()
	return errs.join()
}

const (
	minBuildMemory = 16 << 20 // bytes
	minBuildCPUs   = 10       // thousandths
)

// limit reads a positive quantity; "" and 0 are none.
func limit(text string) (resource.Quantity, error) {
	if text == "" {
		return resource.Quantity{}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return resource.Quantity{}, fmt.Errorf("%q: want a quantity such as 2Gi or 1.5", text)
	}
	return q, nil
}
