package host

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRules(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		count := func() (n int) {
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				rules, err := h.netlink.RuleList(family)
				check(t, err)
				for _, r := range rules {
					if r.Table == 1000 && (r.Mark == 7 || r.IifName == "ipsec0") {
						n++
					}
				}
			}
			return n
		}
		mark, in := Rule{Mark: 7, Table: 1000}, Rule{In: "ipsec0", Table: 1000}
		check(t, h.AddRule(mark))
		check(t, h.AddRule(mark))
		check(t, h.AddRule(in))
		if n := count(); n != 4 {
			t.Errorf("%d rules, want 4", n)
		}
		// Somebody else's is neither listed nor deleted.
		theirs := netlink.NewRule()
		theirs.Family, theirs.Mark, theirs.Table = netlink.FAMILY_V4, 7, 1001
		check(t, h.netlink.RuleAdd(theirs))
		rules, err := h.Rules()
		check(t, err)
		if len(rules) != 2 || rules[0] == rules[1] || !slices.Contains(rules, mark) || !slices.Contains(rules, in) {
			t.Errorf("the rules are %v, want %v and %v", rules, mark, in)
		}
		check(t, h.DeleteRule(mark))
		check(t, h.DeleteRule(mark))
		if n := count(); n != 2 {
			t.Errorf("%d rules are left, want 2", n)
		}
		check(t, h.DeleteRule(in))
		if n := count(); n != 0 {
			t.Errorf("%d rules are left, want none", n)
		}
	})
}
