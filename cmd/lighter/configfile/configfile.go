// Package configfile lets every flag of a command stand in a YAML file, under
// the flag's own name:
//
//	# /etc/lighter/agent.yaml
//	server: https://10.0.0.1:6443
//	token: LT1…
//	node-labels: [disk=ssd, zone=a]
//
// There is one rule for both: a value may stand in the file or on the command
// line. In both places it must be the same, else the command refuses to start:
// neither quietly wins over the other.
package configfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// Flag is the name of the flag that names the file.
const Flag = "config"

// notInFile are the flags that make no sense in the file itself.
var notInFile = []string{Flag, "help"}

// Bind adds --config to cmd, with the given default, and makes cmd read the file
// before it runs. A missing file is an error only if --config was given.
func Bind(cmd *cobra.Command, defaultPath string) {
	path := cmd.Flags().String(Flag, defaultPath, "YAML file with values for these flags, under their names")
	inner := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		content, err := os.ReadFile(*path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed(Flag):
		case err != nil:
			return fmt.Errorf("--%s: %w", Flag, err)
		default:
			if err := Apply(cmd.Flags(), *path, content); err != nil {
				return err
			}
		}
		if inner != nil {
			return inner(cmd, args)
		}
		return nil
	}
}

// Apply sets the flags that content, the text of the file path, has values for.
// It reports every unknown key, clash and wrong value at once, and changes no
// flag if there is one.
func Apply(flags *pflag.FlagSet, path string, content []byte) error {
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(content, &values); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var errs []error
	var settings []setting
	for _, key := range keys {
		found, err := check(flags, key, values[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: key %q: %w", path, key, err))
			continue
		}
		settings = append(settings, found)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, s := range settings {
		if err := s.apply(); err != nil {
			errs = append(errs, fmt.Errorf("%s: key %q: %w", path, s.flag.Name, err))
		}
	}
	return errors.Join(errs...)
}

// setting is a flag with the value that the file gives it: one text, or a list
// for a flag that may be repeated.
type setting struct {
	flags *pflag.FlagSet
	flag  *pflag.Flag
	texts []string
	list  bool
}

func check(flags *pflag.FlagSet, key string, value any) (setting, error) {
	flag := flags.Lookup(key)
	if flag == nil || slices.Contains(notInFile, key) {
		return setting{}, fmt.Errorf("unknown key%s", suggest(flags, key))
	}
	_, repeatable := flag.Value.(pflag.SliceValue)
	s := setting{flags: flags, flag: flag, list: repeatable}
	switch value := value.(type) {
	case nil:
		return s, errors.New("has no value")
	case []any:
		if !repeatable {
			return s, fmt.Errorf("takes one value (%s), not a list", flag.Value.Type())
		}
		for _, item := range value {
			text, err := scalar(item)
			if err != nil {
				return s, err
			}
			s.texts = append(s.texts, text)
		}
	default:
		text, err := scalar(value)
		if err != nil {
			return s, err
		}
		s.texts = []string{text}
	}
	if err := s.try(); err != nil {
		return s, err
	}
	return s, nil
}

// scalar writes a YAML scalar as it would stand on the command line.
func scalar(value any) (string, error) {
	switch value := value.(type) {
	case string:
		return value, nil
	case bool:
		return fmt.Sprint(value), nil
	case float64:
		if value == float64(int64(value)) {
			return fmt.Sprint(int64(value)), nil
		}
		return fmt.Sprint(value), nil
	}
	return "", fmt.Errorf("must be text, a number, true or false, not %T", value)
}

// try checks the value against a copy of the flag's present one: does it parse,
// and if the command line has set the flag, does it say the same?
func (s setting) try() error {
	before, changed := s.current(), s.flag.Changed
	defer func() {
		s.restore(before)
		s.flag.Changed = changed
	}()
	if err := s.apply(); err != nil {
		return err
	}
	if after := s.current(); changed && !slices.Equal(before, after) {
		return fmt.Errorf("clashes with the flag --%s: the file says %q, the command line %q; remove one of them", s.flag.Name, strings.Join(after, ","), strings.Join(before, ","))
	}
	return nil
}

func (s setting) current() []string {
	if values, ok := s.flag.Value.(pflag.SliceValue); ok {
		return slices.Clone(values.GetSlice())
	}
	return []string{s.flag.Value.String()}
}

func (s setting) restore(texts []string) {
	if values, ok := s.flag.Value.(pflag.SliceValue); ok {
		_ = values.Replace(texts) // they were its own
		return
	}
	_ = s.flag.Value.Set(texts[0])
}

func (s setting) apply() error {
	if values, ok := s.flag.Value.(pflag.SliceValue); ok {
		if err := values.Replace(s.texts); err != nil {
			return fmt.Errorf("is no %s: %w", s.flag.Value.Type(), err)
		}
		s.flag.Changed = true
		return nil
	}
	if err := s.flag.Value.Set(s.texts[0]); err != nil {
		return fmt.Errorf("%q is no %s: %w", s.texts[0], s.flag.Value.Type(), err)
	}
	s.flag.Changed = true
	return nil
}

// suggest names a flag that a mistyped key may have meant.
func suggest(flags *pflag.FlagSet, key string) string {
	plain := func(name string) string { return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name)) }
	var hint string
	flags.VisitAll(func(flag *pflag.Flag) {
		if hint == "" && plain(flag.Name) == plain(key) && !slices.Contains(notInFile, flag.Name) {
			hint = fmt.Sprintf(" (did you mean %q?)", flag.Name)
		}
	})
	return hint
}
