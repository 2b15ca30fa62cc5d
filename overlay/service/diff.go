package service

import (
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// clientsMax bounds a set that packets fill, so that a flood of made-up source
// addresses cannot take the host's memory.
const clientsMax = 65536

// existing names what the kernel's table holds, by nft object type.
type existing struct{ chains, sets, maps []string }

// Diff adds to tx what turns old into wanted, and nothing else. Both are tables
// that Build made; old is what the kernel holds.
func Diff(tx *knftables.Transaction, old, wanted *Table) {
	for _, name := range sortedKeys(wanted.Sets) {
		if _, ok := old.Sets[name]; !ok {
			addSet(tx, name, wanted.Sets[name])
		}
	}
	var rewritten []string
	for _, name := range sortedKeys(wanted.Chains) {
		before, ok := old.Chains[name]
		if !ok {
			addChain(tx, name, wanted.Chains[name])
		}
		if ok && slices.Equal(before.Rules, wanted.Chains[name].Rules) {
			continue
		}
		if ok {
			tx.Flush(&knftables.Chain{Name: name})
		}
		rewritten = append(rewritten, name)
	}
	addRules(tx, wanted, rewritten)
	for _, name := range sortedKeys(wanted.Sets) {
		diffElements(tx, name, old.Sets[name], wanted.Sets[name])
	}
	removeGone(tx, existing{
		chains: gone(old.Chains, wanted.Chains, func(Chain) bool { return true }),
		sets:   gone(old.Sets, wanted.Sets, func(s Set) bool { return s.Value == "" }),
		maps:   gone(old.Sets, wanted.Sets, func(s Set) bool { return s.Value != "" }),
	})
}

// TakeOver adds to tx what turns a table of unknown content into wanted. The sets of
// affinity clients that stay keep their elements. have is what the table holds now.
func TakeOver(tx *knftables.Transaction, have existing, wanted *Table) {
	tx.Add(&knftables.Table{})
	for _, name := range have.chains {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range have.maps {
		tx.Flush(&knftables.Map{Name: name})
	}
	for _, name := range have.sets {
		if wanted.Sets[name].Timeout == 0 {
			tx.Flush(&knftables.Set{Name: name})
		}
	}
	unwanted := existing{chains: slices.Clone(have.chains), sets: slices.Clone(have.sets), maps: slices.Clone(have.maps)}
	isSet := func(name string) bool { _, ok := wanted.Sets[name]; return ok }
	unwanted.chains = slices.DeleteFunc(unwanted.chains, func(name string) bool { _, ok := wanted.Chains[name]; return ok })
	unwanted.sets = slices.DeleteFunc(unwanted.sets, isSet)
	unwanted.maps = slices.DeleteFunc(unwanted.maps, isSet)
	removeGone(tx, unwanted)
	addAll(tx, wanted)
}

// Replace adds to tx what makes wanted the table's content even if a set or chain
// of a wanted name has another definition. Affinity is forgotten.
func Replace(tx *knftables.Transaction, wanted *Table) {
	tx.Add(&knftables.Table{}) // so that the deletion cannot fail
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{})
	addAll(tx, wanted)
}

func addAll(tx *knftables.Transaction, wanted *Table) {
	names := sortedKeys(wanted.Sets)
	for _, name := range names {
		addSet(tx, name, wanted.Sets[name])
	}
	chains := sortedKeys(wanted.Chains)
	for _, name := range chains {
		addChain(tx, name, wanted.Chains[name])
	}
	addRules(tx, wanted, chains)
	for _, name := range names {
		diffElements(tx, name, Set{}, wanted.Sets[name])
	}
}

func addSet(tx *knftables.Transaction, name string, s Set) {
	switch {
	case s.Value != "":
		tx.Add(&knftables.Map{Name: name, Type: s.Key + " : " + s.Value})
	case s.Timeout != 0:
		tx.Add(&knftables.Set{Name: name, Type: s.Key, Timeout: &s.Timeout, Size: knftables.PtrTo(uint64(clientsMax)),
			Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}})
	default:
		tx.Add(&knftables.Set{Name: name, Type: s.Key})
	}
}

func addChain(tx *knftables.Transaction, name string, c Chain) {
	chain := &knftables.Chain{Name: name}
	if c.Base != nil {
		chain.Type, chain.Hook = &c.Base.Type, &c.Base.Hook
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(c.Base.Priority))
	}
	tx.Add(chain)
}

func addRules(tx *knftables.Transaction, t *Table, chains []string) {
	for _, name := range chains {
		for _, rule := range t.Chains[name].Rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
}

// diffElements removes what is gone or changed before it adds what is new or
// changed: the kernel has no operation to change an element's value.
func diffElements(tx *knftables.Transaction, name string, old, wanted Set) {
	element := func(key, value string) *knftables.Element {
		e := &knftables.Element{Key: strings.Split(key, " . ")}
		if wanted.Value == "" {
			e.Set = name
		} else {
			e.Map = name
			if value != "" {
				e.Value = strings.Split(value, " . ")
			}
		}
		return e
	}
	var removed, added []string
	for key, value := range old.Elements {
		if now, ok := wanted.Elements[key]; !ok || now != value {
			removed = append(removed, key)
		}
	}
	for key, value := range wanted.Elements {
		if before, ok := old.Elements[key]; !ok || before != value {
			added = append(added, key)
		}
	}
	slices.Sort(removed)
	slices.Sort(added)
	for _, key := range removed {
		tx.Delete(element(key, old.Elements[key]))
	}
	for _, key := range added {
		tx.Add(element(key, wanted.Elements[key]))
	}
}

// removeGone deletes chains and sets. The chains are emptied first because they
// may refer to one another.
func removeGone(tx *knftables.Transaction, g existing) {
	for _, name := range g.chains {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range g.maps {
		tx.Delete(&knftables.Map{Name: name})
	}
	for _, name := range g.chains {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range g.sets {
		tx.Delete(&knftables.Set{Name: name})
	}
}

func gone[V any](old, wanted map[string]V, want func(V) bool) []string {
	var names []string
	for _, name := range sortedKeys(old) {
		if _, ok := wanted[name]; !ok && want(old[name]) {
			names = append(names, name)
		}
	}
	return names
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
