package rcconf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Step is one thing that is to be done.
type Step struct {
	// Program is ifconfig or setkey, run with Args; or it is route and Route
	// says which one to add.
	Program string
	Args    []string
	Route   Route

	// Unless are interfaces: if there is one of them, the step is not needed.
	Unless []string

	Variable string // that asks for it
	Pos      Position
}

// String returns the step as a command line.
func (s Step) String() string {
	words := []string{s.Program}
	for _, arg := range s.Args {
		if arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$`&|<>();*?[#~") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// Plan is what variables ask for.
type Plan struct {
	Steps []Step // in their order
	// Warnings are of what FreeBSD's scripts warn of, and of what they ignore
	// without a word.
	Warnings []*Error
	// Errors are of what can't be done. The steps are without it.
	Errors []*Error
}

// DefaultIPsecFile is where the script for setkey is, unless ipsec_file says
// otherwise.
const DefaultIPsecFile = "/etc/ipsec.conf"

// Plan returns what FreeBSD's rc.d/netif, rc.d/ipsec and rc.d/routing do about
// ipsec interfaces, associations and policies, and static routes: the
// interfaces are created, renamed and configured, then the script is run, then
// the routes are added. Variables that are about something else are ignored.
func (v *Variables) Plan() Plan {
	p := planner{vars: v}
	interfaces := p.create()
	for _, name := range interfaces {
		p.configure(name)
	}
	p.ipsec()
	p.routes()
	return p.plan
}

type planner struct {
	vars *Variables
	plan Plan
}

func (p *planner) step(variable string, v Value, program string, args ...string) *Step {
	p.plan.Steps = append(p.plan.Steps, Step{Program: program, Args: args, Variable: variable, Pos: v.Pos})
	return &p.plan.Steps[len(p.plan.Steps)-1]
}

func (p *planner) warn(v Value, format string, args ...any) {
	p.plan.Warnings = append(p.plan.Warnings, &Error{v.Pos, fmt.Sprintf(format, args...)})
}

func (p *planner) fail(v Value, format string, args ...any) {
	p.plan.Errors = append(p.plan.Errors, &Error{v.Pos, fmt.Sprintf(format, args...)})
}

// words are a value's; none if it has none that are right.
func (p *planner) words(v Value) []string {
	words, err := v.words()
	if err != nil {
		p.plan.Errors = append(p.plan.Errors, err.(*Error))
	}
	return words
}

// of is the variable of an interface: the name with IF in it replaced.
func of(variable, name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(".-/+", r) {
			return '_'
		}
		return r
	}, name)
	return strings.Replace(variable, "IF", name, 1)
}

var ipsecName = regexp.MustCompile(`^ipsec[0-9]+$`)

// create creates and renames the interfaces, and returns their names.
func (p *planner) create() (names []string) {
	const variable = "cloned_interfaces"
	list, _ := p.vars.Get(variable)
	type renamed struct {
		from, to string
		why      Value
	}
	var renames []renamed
	for word := range strings.FieldsSeq(list.Text) {
		name, _, _ := strings.Cut(word, ":") // sticky or not is for the end
		if name == "ipsec" {
			p.fail(list, "%s has ipsec, expected the number too, as in ipsec0", variable)
		}
		if !ipsecName.MatchString(name) || slices.ContainsFunc(renames, func(r renamed) bool { return r.from == name }) {
			continue
		}
		r := renamed{from: name, to: name}
		if v, ok := p.vars.Get(of("ifconfig_IF_name", name)); ok && v.Text != "" {
			r.to, r.why = v.Text, v
		}
		renames = append(renames, r)
		names = append(names, r.to)

		args, _ := p.vars.Get(of("create_args_IF", name))
		s := p.step(variable, list, "ifconfig", append([]string{name, "create"}, strings.Fields(args.Text)...)...)
		s.Unless = slices.Compact([]string{name, r.to})
		if args.Text != "" {
			s.Variable, s.Pos = of("create_args_IF", name), args.Pos
		}
	}
	for _, r := range renames {
		if r.to != r.from {
			p.step(of("ifconfig_IF_name", r.from), r.why, "ifconfig", r.from, "name", r.to).Unless = []string{r.to}
		}
	}
	return names
}

// arguments are those of an interface for ifconfig, without the words that are
// for FreeBSD's scripts.
func (p *planner) arguments(variable string) (args []string, v Value, auto bool) {
	v, ok := p.vars.Get(variable)
	if !ok {
		v, _ = p.vars.Get("ifconfig_DEFAULT")
	}
	auto = true
	words := p.words(v)
	for i := 0; i < len(words); i++ {
		switch strings.ToUpper(words[i]) {
		case "DHCP", "SYNCDHCP", "NOSYNCDHCP", "WPA", "HOSTAP":
			p.warn(v, "%s is ignored: an ipsec interface can't have it", words[i])
		case "NOAUTO":
			auto = false
		case "VNET":
			p.warn(v, "vnet is ignored: there are no jails here")
			i++
		default:
			args = append(args, words[i])
		}
	}
	return args, v, auto
}

// configure configures one interface.
func (p *planner) configure(name string) {
	main := of("ifconfig_IF", name)
	args, v, auto := p.arguments(main)
	if !auto {
		return
	}
	configured, why := false, v
	if len(args) > 0 {
		p.step(main, v, "ifconfig", append([]string{name}, args...)...)
		configured = true
	}
	six := of("ifconfig_IF_ipv6", name)
	args6, v6, _ := p.arguments(six)
	if len(args6) > 0 {
		if strings.Contains(args6[0], ":") {
			p.warn(v6, "%s needs the word inet6 before the address", six)
			args6 = append([]string{"inet6"}, args6...)
		}
		p.step(six, v6, "ifconfig", append([]string{name}, args6...)...)
		if !configured {
			configured, why, main = true, v6, six
		}
	}
	descr := of("ifconfig_IF_descr", name)
	if v, ok := p.vars.Get(descr); ok && v.Text != "" {
		p.step(descr, v, "ifconfig", name, "description", v.Text)
	}
	if configured {
		p.step(main, why, "ifconfig", name, "up")
	}
	aliases := p.aliases(name)
	for _, family := range []string{"inet", "inet6"} {
		for _, a := range aliases {
			if a.words[0] != family {
				continue
			}
			if family == "inet6" && len(args6) == 0 {
				p.warn(a.value, "%s has an IPv6 address and is ignored, because %s is not set", a.variable, six)
				continue
			}
			p.step(a.variable, a.value, "ifconfig", append(append([]string{name}, a.words...), "alias")...)
		}
	}
}

// alias is one address in a variable.
type alias struct {
	variable string
	value    Value
	words    []string // a family first
}

var addressRange = regexp.MustCompile(`[0-9a-fA-F]-[0-9a-fA-F]`)

// aliases are the addresses of an interface beside those that it is configured
// with, in their order.
func (p *planner) aliases(name string) (all []alias) {
	add := func(variable string, v Value, words []string) {
		var one []string
		end := func() {
			if len(one) > 1 {
				all = append(all, alias{variable, v, one})
			}
		}
		for _, word := range words {
			switch {
			case word == "inet" || word == "inet6" || word == "link" || word == "ether":
				end()
				one = []string{word}
			case len(one) == 0:
				p.fail(v, "%s begins with %s, expected inet or inet6", variable, quote(word))
				return
			case len(one) == 1 && addressRange.MatchString(word):
				p.fail(v, "%s has the range %s: write an alias for each address", variable, quote(word))
				return
			default:
				one = append(one, word)
			}
		}
		end()
	}
	variable := of("ifconfig_IF_aliases", name)
	if v, ok := p.vars.Get(variable); ok {
		add(variable, v, p.words(v))
	}
	for _, variable := range p.numbered(of("ifconfig_IF_alias", name)) {
		v, _ := p.vars.Get(variable)
		words := p.words(v)
		if len(words) > 0 && strings.Contains(words[0], ".") {
			p.warn(v, "%s needs the word inet before the address", variable)
			words = append([]string{"inet"}, words...)
		}
		add(variable, v, words)
	}
	variable = of("ipv4_addrs_IF", name)
	if v, ok := p.vars.Get(variable); ok {
		for _, word := range p.words(v) {
			add(variable, v, []string{"inet", word})
		}
	}
	return all
}

// numbered are the variables whose names are the prefix and a number, in the
// order of the numbers.
func (p *planner) numbered(prefix string) (names []string) {
	number := func(name string) int {
		n, err := strconv.ParseUint(strings.TrimPrefix(name, prefix), 10, 31)
		if err != nil || !strings.HasPrefix(name, prefix) {
			return -1
		}
		return int(n)
	}
	for name := range p.vars.values {
		if number(name) >= 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if n := number(a) - number(b); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	return names
}

// enabled says whether a switch is on.
func (p *planner) enabled(variable string) bool {
	v, ok := p.vars.Get(variable)
	switch strings.ToUpper(v.Text) {
	case "YES", "TRUE", "ON", "1":
		return true
	case "NO", "FALSE", "OFF", "0":
		return false
	}
	if ok {
		p.warn(v, "%s is %s, expected YES or NO: taken for NO", variable, quote(v.Text))
	}
	return false
}

func (p *planner) ipsec() {
	if !p.enabled("ipsec_enable") {
		return
	}
	v, ok := p.vars.Get("ipsec_file")
	variable := "ipsec_file"
	if !ok || v.Text == "" {
		v, _ = p.vars.Get("ipsec_enable")
		v.Text, variable = DefaultIPsecFile, "ipsec_enable"
	}
	p.step(variable, v, "setkey", "-f", v.Text)
}

func (p *planner) routes() {
	for _, family := range []struct{ list, variable, option string }{
		{"static_routes", "route_IF", ""},
		{"ipv6_static_routes", "ipv6_route_IF", "-inet6"},
	} {
		list, _ := p.vars.Get(family.list)
		for word := range strings.FieldsSeq(list.Text) {
			name, _, _ := strings.Cut(word, ":") // the interface, for which it is no matter here
			variable := of(family.variable, name)
			v, ok := p.vars.Get(variable)
			if !ok || v.Text == "" {
				p.warn(list, "%s has %s, and %s is not set", family.list, name, variable)
				continue
			}
			args, err := v.words()
			if err != nil {
				p.plan.Errors = append(p.plan.Errors, err.(*Error))
				continue
			}
			if family.option != "" {
				args = append([]string{family.option}, args...)
			}
			route, err := parseRoute(args)
			if err != nil {
				p.fail(v, "%s: %v", variable, err)
				continue
			}
			p.step(variable, v, "route", append([]string{"add"}, args...)...).Route = route
		}
	}
}
