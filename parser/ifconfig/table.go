package ifconfig

import (
	"strconv"
	"strings"
)

// command is an entry of the table: how many words follow it, and what they
// mean.
type command struct {
	args  int
	parse func(*parser, words) error
}

// table holds the commands. Those that take effect in the order in which they
// are written add to the line; those that say something of the inner address
// add to it, and it takes effect when all is said.
var table = map[string]command{
	"destroy": now(func(w words) Command { return Destroy{w.pos()} }),
	"unplumb": now(func(w words) Command { return Destroy{w.pos()} }),

	"tunnel":       {2, parseTunnel},
	"deletetunnel": now(func(w words) Command { return DeleteTunnel{w.pos()} }),
	"-tunnel":      now(func(w words) Command { return DeleteTunnel{w.pos()} }),

	"reqid": number(0, 32, "Invalid reqid value %s", func(w words, n uint64) Command {
		return ReqID{w.pos(), uint32(n)}
	}),
	"fib":       number(0, 32, "fib %s not valid", func(w words, n uint64) Command { return FIB{w.pos(), uint32(n)} }),
	"tunnelfib": number(0, 32, "fib %s not valid", func(w words, n uint64) Command { return TunnelFIB{w.pos(), uint32(n)} }),
	"mtu":       number(10, 31, "%s: bad value for an mtu", func(w words, n uint64) Command { return MTU{w.pos(), int(n)} }),
	"metric": number(10, 31, "%s: bad value for a metric", func(w words, n uint64) Command {
		return Metric{w.pos(), int32(n)}
	}),

	"up":   now(func(w words) Command { return Up{w.pos(), true} }),
	"down": now(func(w words) Command { return Up{w.pos(), false} }),

	"name":         text(func(w words) Command { return Name{w.pos(), w.args[0]} }),
	"description":  text(func(w words) Command { return Description{w.pos(), w.args[0]} }),
	"descr":        text(func(w words) Command { return Description{w.pos(), w.args[0]} }),
	"-description": now(func(w words) Command { return Description{w.pos(), ""} }),
	"-descr":       now(func(w words) Command { return Description{w.pos(), ""} }),

	"group": group("setifgroup", func(w words) Command { return AddGroup{w.pos(), w.args[0]} }),
	"-group": group("unsetifgroup", func(w words) Command {
		return RemoveGroup{w.pos(), w.args[0]}
	}),

	"add":       {0, parseAlias},
	"alias":     {0, parseAlias},
	"-alias":    {0, parseUnalias},
	"delete":    {0, parseUnalias},
	"remove":    {0, parseUnalias},
	"netmask":   {1, parseNetmask},
	"prefixlen": {1, parsePrefixLen},
	"broadcast": {1, parseDestination},
}

// foreign are ifconfig's other commands, by the file of FreeBSD's sbin/ifconfig
// that has them. They would else be taken for the names of hosts.
var foreign = map[string]string{
	"ifconfig.c": `arp compress debug hwrxtstmp ipdst link0 link1 link2 lro mextpg monitor netcons
		noicmp normal polling promisc rxcsum rxcsum6 rxtls rxtlsrtlmt staticarp toe tso tso4 tso6
		txcsum txcsum6 txrtlmt txtls txtlsrtlmt vlanhwcsum vlanhwfilter vlanhwtag vlanhwtso vlanmtu
		vnet vxlanhwcsum vxlanhwtso wol wol_magic wol_mcast wol_ucast pfil`,
	"af_inet6.c": `anycast autoconf deprecated eui64 pltime tentative vltime`,
	"af_nd6.c": `accept_rtadv auto_linklocal defaultif ifdisabled no_dad no_prefer_iface no_radr nud
		prefer_source stableaddr stable ignoreloop`,
	"ifmedia.c": `inst instance media mediaopt mode`,
	"ifmac.c":   `maclabel`,
	"ifvlan.c":  `pcp vlan vlandev vlanpcp vlanproto qinq`,
	"ifvxlan.c": `vni vxlanaddress vxlandev vxlanflush vxlanflushall vxlangroup vxlanid vxlanlearn vxlanlocal
		vxlanlocalport vxlanmaxaddr vxlanportrange vxlanremote vxlanremoteport vxlantimeout vxlanttl`,
	"carp.c": `advbase advskew carpver mcast mcast6 pass peer peer6 state vhid vrrpinterval vrrpprio`,
	"iflagg.c": `flowid_shift lacp_fast_timeout lacp_rxtest lacp_strict lacp_txtest lagghash laggport
		laggproto laggtype rr_limit use_flowid use_numa`,
	"ifbridge.c": `addm addr autoedge autoptp defpvid defuntagged deladdr deletem discover edge flush flushall fwddelay
		hellotime holdcnt ifmaxaddr ifpathcost ifpriority learn maxaddr maxage priority private proto ptp
		span static sticky stp tagged timeout untagged vlanfilter`,
	"ifpfsync.c": `defer maxupd syncdev syncif syncpeer version`,
	"ifgif.c":    `accept_rev_ethip_ver ignore_source send_rev_ethip_ver`,
	"ifgre.c":    `enable_csum enable_seq grekey grev udpencap udpport`,
	"ifstf.c":    `stfv4br stfv4net`,
	"ifieee80211.c": `ampdu ampdudensity ampdulimit amsdu amsdulimit apbridge authmode bgscan bgscanidle
		bgscanintvl bintval bssid bssid burst channel chanlist country deftxkey dfs dotd doth dtimperiod dturbo
		dwds ecm ff fragthreshold ht ht20 ht40 htcompat htprotmode indoor inact hidessid ldpc mac:add mac:allow
		mac:deny mac:del mac:flush mac:kick mac:open mac:radius maxretry mcastrate mesh_metric meshid meshforward
		meshgate meshpath meshpeering meshrtcmd meshttl mgtrate nwkey outdoor powersave powersavesleep powersavemode
		protmode puren pureg quiet regdomain rifs roam:rate roam:rssi roaming rtsthreshold scan scanvalid shortgi
		smps ssid stationname stbc sta tdmabintval tdmaslot tdmaslotcnt tdmaslotlen tsn txpower ucastrate uapsd
		vht vht160 vht40 vht80 vht80p80 vhtstbctx wds wepkey wepmode weptxkey wlanaddr wlanbssid wlandev wlanmode
		wme wmm wps`,
}

// reasons are why a foreign command that is for addresses of any interface makes no
// sense here, or where else what it sets can be set.
var reasons = reasonsFor(map[string]string{
	"ipdst":                         "it was for IPX",
	"anycast":                       "Linux assigns the anycast addresses itself, to routers",
	"eui64":                         "there is no link-level address to make an interface identifier of",
	"deprecated pltime vltime":      "give the address lifetimes with ip address change",
	"no_dad tentative":              "addresses are never probed for duplicates",
	"nud":                           "a tunnel has no neighbours to look for",
	"auto_linklocal":                "it is the variable net.ipv6.conf.*.addr_gen_mode",
	"ifdisabled":                    "it is the variable net.ipv6.conf.*.disable_ipv6",
	"autoconf accept_rtadv":         "it is the variable net.ipv6.conf.*.accept_ra",
	"no_radr":                       "it is the variable net.ipv6.conf.*.accept_ra_defrtr",
	"stable stableaddr":             "it is the variable net.ipv6.conf.*.addr_gen_mode",
	"defaultif":                     "add a default route with ip route",
	"no_prefer_iface prefer_source": "Linux chooses source addresses by ip addrlabel and by the route's src",
})

// reasonsFor has one entry for each of the words of a key.
func reasonsFor(byWords map[string]string) map[string]string {
	byName := map[string]string{}
	for names, reason := range byWords {
		for name := range strings.FieldsSeq(names) {
			byName[name] = reason
		}
	}
	return byName
}

func init() {
	refuse := command{0, func(_ *parser, w words) error {
		message := w.name + ": not supported on an ipsec interface"
		if reason, ok := reasons[strings.TrimPrefix(w.name, "-")]; ok {
			message += ": " + reason
		}
		return &Error{At: w.at, Message: message}
	}}
	for _, names := range foreign {
		for _, name := range strings.Fields(names) {
			table[name] = refuse
			table["-"+name] = refuse
		}
	}
}

// now is a command without arguments.
func now(f func(words) Command) command {
	return command{0, func(p *parser, w words) error {
		p.add(f(w))
		return nil
	}}
}

// text is a command with one argument that may be anything.
func text(f func(words) Command) command {
	c := now(f)
	c.args = 1
	return c
}

// number is a command with one unsigned number, as strtoul(3) reads it, that
// fits the bits.
func number(base, bits int, complaint string, f func(words, uint64) Command) command {
	return command{1, func(p *parser, w words) error {
		n, ok := parseUint(w.args[0], base, bits)
		if !ok {
			return w.bad(0, complaint, w.args[0])
		}
		p.add(f(w, n))
		return nil
	}}
}

// parseUint takes the notations of C only: with base 0, 0x for hexadecimal and
// 0 for octal.
func parseUint(s string, base, bits int) (uint64, bool) {
	if strings.Trim(strings.ToLower(s), "0123456789abcdefx") != "" {
		return 0, false
	}
	if len(s) > 1 && s[0] == '0' && strings.ContainsAny(s[1:2], "bB") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, bits)
	return n, err == nil
}

// group is a command with the name of a group.
func group(what string, f func(words) Command) command {
	return command{1, func(p *parser, w words) error {
		name := w.args[0]
		switch {
		case name == "":
			return w.bad(0, "%s: group name is empty", what)
		case name[len(name)-1] >= '0' && name[len(name)-1] <= '9':
			return w.bad(0, "%s: group names may not end in a digit", what)
		case len(name) > maxName:
			return w.bad(0, "%s: group name too long", what)
		}
		p.add(f(w))
		return nil
	}}
}

func parseTunnel(p *parser, w words) error {
	t := Tunnel{Position: w.pos(), Family: p.addr.family}
	for n, h := range []*Host{&t.Src, &t.Dst} {
		var err error
		if *h, err = parseHost(w.at+1+n, w.args[n]); err != nil {
			return err
		}
	}
	if src, dst := t.Src.Addr, t.Dst.Addr; src.IsValid() && dst.IsValid() && src.Is4() != dst.Is4() {
		return w.bad(1, "source and destination address families do not match")
	}
	p.add(t)
	return nil
}

func parseAlias(p *parser, w words) error     { return p.addr.keep(w.pos()) }
func parseUnalias(p *parser, w words) error   { return p.addr.remove(w.pos()) }
func parseNetmask(p *parser, w words) error   { return p.addr.netmask(w) }
func parsePrefixLen(p *parser, w words) error { return p.addr.prefixLen(w) }
func parseDestination(p *parser, w words) error {
	return p.addr.destination(w.pos(), w.at+1, w.args[0])
}
