package host

import (
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
