package ifconfig

import (
	"fmt"
	"strings"
)

// maxName is the longest name of an interface or a group, in bytes.
const maxName = 15

var families = map[string]Family{
	"inet": Inet, "inet6": Inet6,
	"link": Link, "ether": Link, "lladdr": Link,
}

// parser walks through the arguments.
type parser struct {
	args  []string
	next  int // index of the first argument that was not parsed
	line  Line
	media bool    // -m, which -l excludes
	addr  address // the inner address, as far as it is known
}

// Parse parses the arguments that follow the program's name. Formats of
// addresses that options do not change are those of defaults. The error is an
// [*Error].
func Parse(args []string, defaults Format) (*Line, error) {
	p := &parser{args: args, line: Line{Options: Options{Format: defaults}}}
	if err := p.options(); err != nil {
		return nil, err
	}
	o := &p.line.Options
	switch {
	case o.Cloners || o.Members != "":
		return &p.line, nil
	case o.NamesOnly && (o.All || p.media), o.UpOnly && o.DownOnly:
		return nil, &Error{At: 0, Usage: true}
	}
	if p.next == len(args) && !o.NamesOnly {
		o.All = true
	}
	var err error
	if o.All || o.NamesOnly {
		err = p.listing()
	} else {
		err = p.configuration()
	}
	if err != nil {
		return nil, err
	}
	return &p.line, nil
}

// options parses as getopt(3) does: letters may be joined, an argument may
// follow its letter at once, and "--" or the first other word ends them.
func (p *parser) options() error {
	o := &p.line.Options
	for p.next < len(p.args) {
		at, letters := p.next, p.args[p.next]
		if len(letters) < 2 || letters[0] != '-' {
			return nil
		}
		p.next++
		if letters == "--" {
			return nil
		}
		for letters = letters[1:]; letters != ""; {
			letter := letters[0]
			letters = letters[1:]
			switch letter {
			case 'a':
				o.All = true
			case 'd':
				o.DownOnly = true
			case 'l':
				o.NamesOnly = true
			case 'u':
				o.UpOnly = true
			case 'v':
				o.Verbose++
			case 'C':
				o.Cloners = true
				return nil
			case 'm':
				p.media = true
			case 'k', 'n', 'L':
				// Keys, modules and lifetimes: there are none to show, as of media.
			case 'f', 'g', 'G':
				value := letters
				letters = ""
				if value == "" {
					if p.next == len(p.args) {
						return &Error{At: at, Message: fmt.Sprintf("option requires an argument -- %c", letter), Usage: true}
					}
					value = p.args[p.next]
					p.next++
				}
				switch {
				case letter == 'f':
					o.Format.Set(value)
				case letter == 'g' && o.All:
					o.Group = value
				case letter == 'g':
					o.Members = value
					return nil
				case o.All:
					o.NotGroup = value
				default:
					return &Error{At: at, Usage: true}
				}
			default:
				return &Error{At: at, Message: fmt.Sprintf("illegal option -- %c", letter), Usage: true}
			}
		}
	}
	return nil
}

// listing parses what may follow -a or -l.
func (p *parser) listing() error {
	if len(p.args)-p.next > 1 {
		return &Error{At: p.next + 1, Usage: true}
	}
	if p.next < len(p.args) {
		family, ok := families[p.args[p.next]]
		if !ok {
			return &Error{At: p.next, Message: fmt.Sprintf("Address family '%s' unknown.", p.args[p.next]), Usage: true}
		}
		p.line.Family = family
		p.next++
	}
	return nil
}

// configuration parses an interface and what is said of it.
func (p *parser) configuration() error {
	p.line.Interface = p.args[p.next]
	p.next++
	if p.peek() == "create" || p.peek() == "plumb" {
		if len(p.line.Interface) > maxName {
			return &Error{At: p.next - 1, Message: p.line.Interface + ": cloning name too long"}
		}
		p.add(Create{Position(p.next)})
		p.next++
	}
	if family, ok := families[p.peek()]; ok {
		p.line.Family = family
		p.next++
	}
	if p.line.Family == Link && p.next < len(p.args) {
		return &Error{At: p.next - 1, Message: "an ipsec interface has no link-level address"}
	}
	p.addr.family = p.line.Family
	if p.addr.family == AnyFamily {
		p.addr.family = Inet
	}
	for p.next < len(p.args) {
		if err := p.command(); err != nil {
			return err
		}
	}
	cmd, err := p.addr.command()
	if cmd != nil {
		p.add(cmd)
	}
	return err
}

func (p *parser) peek() string {
	if p.next == len(p.args) {
		return ""
	}
	return p.args[p.next]
}

func (p *parser) add(c Command) { p.line.Commands = append(p.line.Commands, c) }

// command parses one command with its arguments. A word that is none is the
// inner address, and after that its destination.
func (p *parser) command() error {
	w := words{at: p.next, name: p.args[p.next]}
	cmd, ok := table[w.name]
	if !ok {
		p.next++
		return p.addr.word(Position(w.at), w.name)
	}
	rest := p.args[p.next+1:]
	if len(rest) < cmd.args {
		message := fmt.Sprintf("'%s' requires argument", w.name)
		if cmd.args > 1 {
			message = fmt.Sprintf("'%s' requires %d arguments", w.name, cmd.args)
		}
		return &Error{At: len(p.args), Message: message}
	}
	w.args = rest[:cmd.args]
	p.next += 1 + cmd.args
	return cmd.parse(p, w)
}

// words are a command and its arguments.
type words struct {
	at   int // of the command
	name string
	args []string
}

func (w words) pos() Position { return Position(w.at) }

// bad is the error of an argument that is not what it should be.
func (w words) bad(arg int, format string, args ...any) error {
	return &Error{At: w.at + 1 + arg, Message: fmt.Sprintf(format, args...)}
}

// badValue is FreeBSD's word for an address that is none.
func badValue(at int, text, why string) error {
	message := text + ": bad value"
	if why != "" {
		message += " (" + why + ")"
	}
	return &Error{At: at, Message: message}
}

// cutLast cuts s around the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
