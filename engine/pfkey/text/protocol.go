package text

import "strconv"

// protocols are the names of upper-layer protocols by number, those of FreeBSD's
// protocols(5) but for 4, which setkey calls ip4. The table is here because the
// system's differs: Linux calls 41 and 112 otherwise, and has no 240.
var protocols = [...]string{
	0: "ip", "icmp", "igmp", "ggp", "ip4", "st2", "tcp", "cbt", "egp", "igp",
	10: "bbn-rcc", "nvp", "pup", "argus", "emcon", "xnet", "chaos", "udp", "mux", "dcn",
	20: "hmp", "prm", "xns-idp", "trunk-1", "trunk-2", "leaf-1", "leaf-2", "rdp", "irtp", "iso-tp4",
	30: "netblt", "mfe-nsp", "merit-inp", "dccp", "3pc", "idpr", "xtp", "ddp", "idpr-cmtp", "tp++",
	40: "il", "ipv6", "sdrp", "ipv6-route", "ipv6-frag", "idrp", "rsvp", "gre", "dsr", "bna",
	50: "esp", "ah", "i-nlsp", "swipe", "narp", "mobile", "tlsp", "skip", "ipv6-icmp", "ipv6-nonxt",
	60: "ipv6-opts", "", "cftp", "", "sat-expak", "kryptolan", "rvd", "ippc", "", "sat-mon",
	70: "visa", "ipcv", "cpnx", "cphb", "wsn", "pvp", "br-sat-mon", "sun-nd", "wb-mon", "wb-expak",
	80: "iso-ip", "vmtp", "secure-vmtp", "vines", "ttp", "nsfnet-igp", "dgp", "tcf", "eigrp", "ospf",
	90: "sprite-rpc", "larp", "mtp", "ax.25", "ipip", "micp", "scc-sp", "etherip", "encap", "",
	100: "gmtp", "ifmp", "pnni", "pim", "aris", "scps", "qnx", "a/n", "ipcomp", "snp",
	110: "compaq-peer", "ipx-in-ip", "carp", "pgm", "", "l2tp", "ddx", "iatp", "stp", "srp",
	120: "uti", "smp", "sm", "ptp", "isis", "fire", "crtp", "crudp", "sscopmce", "iplt",
	130: "sps", "pipe", "sctp", "fc", "rsvp-e2e-ignore", "mobility-header", "udplite", "mpls-in-ip", "manet", "hip",
	140: "shim6", "wesp", "rohc",
	240: "pfsync",
}

func protocolName(proto uint8) string {
	if int(proto) < len(protocols) && protocols[proto] != "" {
		return protocols[proto]
	}
	return strconv.Itoa(int(proto))
}
