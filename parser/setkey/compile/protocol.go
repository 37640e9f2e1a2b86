package compile

import "strings"

// protocols are the names of FreeBSD's /etc/protocols that setkey's users have
// a use for, with the aliases. The host's own file is not asked, so that a
// script means the same everywhere.
var protocols = map[string]uint8{
	"ip": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "st2": 5, "tcp": 6, "cbt": 7, "egp": 8, "igp": 9,
	"nvp": 11, "pup": 12, "argus": 13, "emcon": 14, "xnet": 15, "chaos": 16, "udp": 17, "mux": 18, "dcn": 19,
	"hmp": 20, "prm": 21, "xns-idp": 22, "rdp": 27, "irtp": 28, "iso-tp4": 29, "netblt": 30, "dccp": 33,
	"idpr": 35, "xtp": 36, "ddp": 37, "ipv6": 41, "sdrp": 42, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45,
	"rsvp": 46, "gre": 47, "dsr": 48, "bna": 49, "esp": 50, "ah": 51, "swipe": 53, "narp": 54, "mobile": 55,
	"tlsp": 56, "skip": 57, "ipv6-icmp": 58, "icmp6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "vmtp": 81,
	"eigrp": 88, "ospf": 89, "mtp": 92, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103,
	"ipcomp": 108, "vrrp": 112, "carp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133,
	"mobility-header": 135, "udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140,
	"wesp": 141, "rohc": 142, "pfsync": 240,
}

// protocol returns the number of a protocol's name, or of the alias in capitals
// that most have. ip4 is setkey's own.
func protocol(name string) (uint8, bool) {
	if name == "ip4" {
		return 4, true
	}
	if n, ok := protocols[name]; ok {
		return n, true
	}
	if name != strings.ToUpper(name) {
		return 0, false
	}
	n, ok := protocols[strings.ToLower(name)]
	return n, ok
}
