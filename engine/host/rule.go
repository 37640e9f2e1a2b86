package host

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Rule chooses the routing table of some packets of both families: FreeBSD's
// tunnelfib by a mark, its fib by the interface that packets come in by.
type Rule struct {
	Mark  uint32 // of the packets, 0 for any
	In    string // name of the link they come in by, "" for any; the rule follows the name
	Table uint32 // number of the routing table
}

// ruleProtocol marks the rules that AddRule made, as "protocol" in ip rule's
// words, so that those of somebody else are left alone.
const ruleProtocol = 0x9e

// Rules returns the rules that AddRule made, of whatever process.
func (h *Host) Rules() ([]Rule, error) {
	var all []Rule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := again(func() ([]netlink.Rule, error) { return h.netlink.RuleList(family) })
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list the rules of routing: %w", err)
		}
		for _, r := range rules {
			ours := Rule{Mark: r.Mark, In: r.IifName, Table: uint32(r.Table)}
			if r.Protocol == ruleProtocol && !slices.Contains(all, ours) {
				all = append(all, ours)
			}
		}
	}
	return all, nil
}

// AddRule adds a rule, before those of the main table. One that is there is left
// as it is.
func (h *Host) AddRule(r Rule) error {
	return h.eachFamily(r, "add", func(family int) error {
		// The kernel would add it once more, with another priority.
		rules, err := again(func() ([]netlink.Rule, error) { return h.netlink.RuleList(family) })
		if err != nil {
			return err
		}
		if slices.ContainsFunc(rules, r.is) {
			return nil
		}
		return h.netlink.RuleAdd(r.netlink(family))
	})
}

// DeleteRule removes a rule, if it is there.
func (h *Host) DeleteRule(r Rule) error {
	return h.eachFamily(r, "delete", func(family int) error {
		err := h.netlink.RuleDel(r.netlink(family))
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
}

// eachFamily does something with a rule of each family that the kernel has.
func (h *Host) eachFamily(r Rule, what string, do func(family int) error) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := do(family); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("%s the rule for routing table %d (mark %d, from link %q): %w", what, r.Table, r.Mark, r.In, err)
		}
	}
	return nil
}

func (r Rule) netlink(family int) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.IifName, rule.Table = family, r.Mark, r.In, int(r.Table)
	rule.Protocol = ruleProtocol
	return rule
}

func (r Rule) is(rule netlink.Rule) bool {
	return rule.Protocol == ruleProtocol && rule.Mark == r.Mark && rule.IifName == r.In && rule.Table == int(r.Table) && rule.Src == nil && rule.Dst == nil
}
