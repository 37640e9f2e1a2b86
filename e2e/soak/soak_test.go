// Package soak does to two hosts, for as long as it is told to, whatever their
// users and misfortune could do, in random order and under traffic, and holds
// what they are then to a model of what they should be.
package soak

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
	"ifipsec/engine/control"
)

var (
	minutes = flag.Float64("minutes", 0.1, "how long it takes")
	seed    = flag.Uint64("seed", 0, "which random order; 0 is another each time")
)

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }

const (
	slots    = 5 // interfaces that there may be; the first stays
	patience = 10 * time.Second
)

// tunnel is what one interface should be, on both hosts.
type tunnel struct {
	exists      bool
	reqid       [2]int
	ends        [2]netip.Addr
	spi         [2]uint32 // from A to B, and from B to A
	window      int
	description string
	mtu         int
}

// soak is the two hosts and the model of them.
type soak struct {
	*testing.T
	hosts   [2]*lab.Host
	random  *rand.Rand
	tunnels [slots]tunnel
	next    uint32                   // SPI and key, never used again
	sas     map[uint32][2]netip.Addr // the endpoints of SAs
	done    map[string]int
}

func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	s := &soak{
		T: t, hosts: [2]*lab.Host{programs.NewHost(t, "hostA"), programs.NewHost(t, "hostB")},
		random: rand.New(rand.NewPCG(*seed, 0)), next: 1000, done: map[string]int{}, sas: map[uint32][2]netip.Addr{},
	}
	err := lab.Connect(
		lab.Port{Host: s.hosts[0], Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.0.3/24"), netip.MustParsePrefix("192.168.0.13/24")}},
		lab.Port{Host: s.hosts[1], Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.0.5/24"), netip.MustParsePrefix("192.168.0.15/24")}},
		1500,
	)
	if err != nil {
		t.Fatal(err)
	}
	s.keepOnDisk(1)
	// Everything has been there once before what there is is measured.
	for i := range slots {
		s.create(i)
	}
	for i := 1; i < slots; i++ {
		s.destroy(i)
	}
	before := [2]footprint{s.footprint(0), s.footprint(1)}

	tcp, err := lab.StartConnection(s.hosts[0], s.hosts[1], inner(0, 1), 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Stop()
	udp := make([]*lab.Datagrams, 2)
	for to := range udp {
		if udp[to], err = lab.StartDatagrams(s.hosts[1-to], s.hosts[to], inner(0, to), 500); err != nil {
			t.Fatal(err)
		}
		defer udp[to].Stop()
	}
	wire := s.watch(nil)
	looked := time.Now()
	steps := 0
	for start := time.Now(); time.Since(start) < time.Duration(*minutes*float64(time.Minute)) && !t.Failed(); steps++ {
		s.step()
		s.compare()
		// What is captured is kept in memory.
		if time.Since(looked) > 5*time.Second {
			wire, looked = s.watch(wire), time.Now()
		}
	}
	for to := range udp {
		got := udp[to].Stop()
		t.Logf("datagrams to %s: %+v", s.hosts[to].Name, got)
		if got.Twice > 0 || got.Damaged > 0 || got.Received < got.Sent/2 {
			t.Errorf("datagrams to %s: %+v", s.hosts[to].Name, got)
		}
	}
	n, err := tcp.Stop()
	if err != nil {
		t.Errorf("the TCP connection: %v", err)
	}
	s.finish(wire)
	t.Logf("%d bytes in one TCP connection, %d steps: %v", n, steps, s.done)

	// Back to what was there at the beginning, in processes that were killed and
	// replaced in between.
	for i := 1; i < slots; i++ {
		if s.tunnels[i].exists {
			s.destroy(i)
		}
	}
	for h := range s.hosts {
		after := s.footprint(h)
		t.Logf("%s: before %+v", s.hosts[h].Name, before[h])
		t.Logf("%s: after  %+v", s.hosts[h].Name, after)
		if diff := cmp.Diff(before[h].Links, after.Links); diff != "" {
			t.Errorf("links of %s (-before +after):\n%s", s.hosts[h].Name, diff)
		}
		if diff := cmp.Diff(before[h].Routes, after.Routes); diff != "" {
			t.Errorf("routes of %s (-before +after):\n%s", s.hosts[h].Name, diff)
		}
		if after.Goroutines == 0 || after.Goroutines > before[h].Goroutines+4 ||
			after.Descriptors > before[h].Descriptors+4 || after.Threads > before[h].Threads+16 ||
			after.Memory > 2*before[h].Memory+32<<10 || after.State > before[h].State+4<<20 {
			t.Errorf("%s has grown", s.hosts[h].Name)
		}
	}
}

// inner is the address of a host in a tunnel.
func inner(slot, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16, byte(slot), byte(3 + 2*host)})
}

func name(slot int) string { return fmt.Sprintf("ipsec%d", slot) }

// step does something to the hosts and to the model.
func (s *soak) step() {
	slot := 1 + s.random.IntN(slots-1)
	t := &s.tunnels[slot]
	var what string
	switch n := s.random.IntN(100); {
	case n < 15 && !t.exists:
		what = "create"
		s.create(slot)
	case n < 25 && t.exists:
		what = "destroy"
		s.destroy(slot)
	case n < 45:
		what = "rekey"
		s.rekey(s.random.IntN(slots))
	case n < 52 && t.exists:
		what = "reqid"
		h := s.random.IntN(2)
		s.next++
		t.reqid[h] = int(s.next)
		s.run(h, fmt.Sprintf("ifconfig %s reqid %d", name(slot), t.reqid[h]))
		s.rekey(slot)
	case n < 60 && t.exists:
		what = "endpoints"
		t.ends = s.someEnds()
		for h := range s.hosts {
			s.run(h, fmt.Sprintf("ifconfig %s inet tunnel %s %s", name(slot), t.ends[h], t.ends[1-h]))
		}
		s.rekey(slot)
	case n < 70 && t.exists:
		what = "attributes"
		t.description, t.mtu = fmt.Sprintf("number %d", s.random.IntN(1000)), 1280+s.random.IntN(200)
		for h := range s.hosts {
			s.run(h, fmt.Sprintf("ifconfig %s mtu %d description '%s'", name(slot), t.mtu, t.description))
		}
	case n < 80:
		what = "kill"
		s.kill(s.random.IntN(2), false)
	case n < 84:
		what = "kill with parent"
		s.kill(s.random.IntN(2), true)
	case n < 90:
		what = "replace"
		s.run(s.random.IntN(2), "ipsecd -replace")
	default:
		what = "wait"
		time.Sleep(time.Duration(s.random.IntN(200)) * time.Millisecond)
	}
	s.done[what]++
}

// run runs a script that must say nothing. A daemon may be on its way back.
func (s *soak) run(host int, script string) {
	s.Helper()
	programs.Quiet(s, s.hosts[host], script)
}

// someEnds are endpoints; the hosts have two addresses each.
func (s *soak) someEnds() [2]netip.Addr {
	pick := func(host int) netip.Addr {
		return netip.AddrFrom4([4]byte{192, 168, 0, byte(3 + 2*host + 10*s.random.IntN(2))})
	}
	return [2]netip.Addr{pick(0), pick(1)}
}

// diskDir is where a host keeps its state that has a disk for it.
const diskDir = "/var/lib/ipsecd"

// keepOnDisk starts the daemon of a host with a disk for its state. Whoever starts
// another one later need not say so.
func (s *soak) keepOnDisk(host int) {
	s.Helper()
	s.run(host, "mount -t tmpfs -o mode=755,size=64m disk "+filepath.Dir(diskDir)+" && { setsid ipsecd -state-dir "+diskDir+" >/run/daemon-log 2>&1 & }")
	err := lab.Until(patience, func() error {
		if r := programs.Shell(s, s.hosts[host], "ipsecd -status"); r.Exit != 0 {
			return fmt.Errorf("%s: %s", s.hosts[host].Name, strings.TrimSpace(r.Stderr))
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *soak) create(slot int) {
	s.next += 2
	t := tunnel{exists: true, reqid: [2]int{int(s.next), int(s.next) + 1}, ends: s.someEnds(), window: 64, mtu: 1400}
	s.next++
	for h := range s.hosts {
		s.run(h, fmt.Sprintf("ifconfig %[1]s create reqid %[2]d && ifconfig %[1]s inet tunnel %[3]s %[4]s && ifconfig %[1]s inet %[5]s/32 %[6]s",
			name(slot), t.reqid[h], t.ends[h], t.ends[1-h], inner(slot, h), inner(slot, 1-h)))
	}
	s.tunnels[slot] = t
	s.rekey(slot)
}

func (s *soak) destroy(slot int) {
	t := &s.tunnels[slot]
	for h := range s.hosts {
		s.run(h, "ifconfig "+name(slot)+" destroy")
		s.run(h, programs.Setkey(s.deletes(t.spi)))
	}
	*t = tunnel{}
}

// deletes removes SAs, which may be of other endpoints than the tunnel has now.
func (s *soak) deletes(spis [2]uint32) (script string) {
	for way, spi := range spis {
		if spi != 0 {
			ends := s.sas[spi]
			script += fmt.Sprintf("delete %s %s esp %d;\n", ends[way], ends[1-way], spi)
		}
	}
	return script
}

// rekey gives a tunnel new SAs in the order that loses nothing, and takes away
// the old ones.
func (s *soak) rekey(slot int) {
	t := &s.tunnels[slot]
	if !t.exists {
		return
	}
	old := t.spi
	s.next += 2
	t.spi = [2]uint32{s.next, s.next + 1}
	for _, spi := range t.spi {
		s.sas[spi] = t.ends
	}
	add := func(way, host int) string {
		return fmt.Sprintf("add %s %s esp %d -m tunnel -u %d -r %d -E aes-gcm-16 0x%040x;\n",
			t.ends[way], t.ends[1-way], t.spi[way], t.reqid[host], t.window, t.spi[way])
	}
	s.run(0, programs.Setkey(add(1, 0)))
	s.run(1, programs.Setkey(add(0, 1)+add(1, 1)))
	s.run(0, programs.Setkey(add(0, 0)))
	if deletes := s.deletes(old); deletes != "" {
		time.Sleep(20 * time.Millisecond) // what was sent with them arrives
		s.run(0, programs.Setkey(deletes))
		s.run(1, programs.Setkey(deletes))
	}
}

// kill kills a daemon, and its parent with it; the next command starts another
// then.
func (s *soak) kill(host int, parent bool) {
	all, err := s.hosts[host].Processes()
	if err != nil {
		s.Fatal(err)
	}
	for _, process := range []string{"ipsecd-parent", "ipsecd"} {
		for _, p := range all {
			if p.Name != process || !parent && process != "ipsecd" {
				continue
			}
			_ = unix.Kill(p.PID, unix.SIGKILL)
			// A command that reached it while it dies would get no answer.
			err := lab.Until(patience, func() error {
				if err := unix.Kill(p.PID, 0); err == nil {
					return fmt.Errorf("process %d is not dead", p.PID)
				}
				return nil
			})
			if err != nil {
				s.Fatal(err)
			}
		}
	}
}

// daemon is the process ID of a host's daemon.
func (s *soak) daemon(host int) (pid int) {
	s.Helper()
	err := lab.Until(patience, func() error {
		all, err := s.hosts[host].Processes()
		all = slices.DeleteFunc(all, func(p lab.Process) bool { return p.Name != "ipsecd" })
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%s has daemons %v (%v), want one", s.hosts[host].Name, all, err)
		}
		pid = all[0].PID
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return pid
}

// compare holds the hosts to the model.
func (s *soak) compare() {
	s.Helper()
	for h, host := range s.hosts {
		var interfaces, spis []string
		for i := range s.tunnels {
			if t := &s.tunnels[i]; t.exists {
				interfaces = append(interfaces, fmt.Sprintf("%s mtu %d tunnel %s --> %s reqid %d %s",
					name(i), t.mtu, t.ends[h], t.ends[1-h], t.reqid[h], t.description))
				spis = append(spis, strconv.Itoa(int(t.spi[0])), strconv.Itoa(int(t.spi[1])))
			}
		}
		slices.Sort(spis)
		// This starts a daemon if there is none.
		sad := programs.Output(s, host, "setkey -D")
		if diff := cmp.Diff(spis, all(sad, `spi=(\d+)\(`)); diff != "" {
			s.Fatalf("SAs of %s (-want +got):\n%s", host.Name, diff)
		}
		if diff := cmp.Diff(interfaces, shown(programs.Output(s, host, "ifconfig"))); diff != "" {
			s.Fatalf("interfaces of %s (-want +got):\n%s", host.Name, diff)
		}
		if n, want := strings.Count(programs.Output(s, host, "setkey -DP"), "scope=ifnet"), 4*len(interfaces); n != want {
			s.Fatalf("%s has %d policies of interfaces, want %d", host.Name, n, want)
		}
	}
	for i := range s.tunnels {
		if !s.tunnels[i].exists || s.random.IntN(2) == 0 {
			continue
		}
		from := s.random.IntN(2)
		err := lab.Until(patience, func() error {
			r, err := s.hosts[from].Ping(s.Context(), lab.Ping{To: inner(i, 1-from), Size: s.random.IntN(1200), Timeout: 200 * time.Millisecond})
			if err == nil && r.Received != 1 {
				err = fmt.Errorf("no ping from %s through %s was answered", s.hosts[from].Name, name(i))
			}
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
	}
}

// all returns what the first group of a pattern matches, sorted.
func all(text, pattern string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}

// shown is what ifconfig shows of ipsec interfaces, a line each.
func shown(text string) (lines []string) {
	fields := regexp.MustCompile(`(?m)^(ipsec\d+): flags=.* mtu (\d+)\n(?:\tdescription: (.*)\n)?(?:\t.*\n)*?\ttunnel inet (\S+ --> \S+)\n(?:\t.*\n)*?\treqid: (\d+)\n`)
	for _, m := range fields.FindAllStringSubmatch(text, -1) {
		lines = append(lines, fmt.Sprintf("%s mtu %s tunnel %s reqid %s %s", m[1], m[2], m[4], m[5], m[3]))
	}
	slices.Sort(lines)
	return lines
}

// watch begins to record the wire, and looks at what was recorded until now.
func (s *soak) watch(until *lab.Capture) *lab.Capture {
	s.Helper()
	next, err := s.hosts[0].Capture("eth0", 96)
	if err != nil {
		s.Fatal(err)
	}
	if until != nil {
		s.finish(until)
	}
	return next
}

// Where the header after the IP header is in a frame, and what an ICMP message
// begins with that says that nobody wants a protocol (RFC 792).
const (
	esp                 = 14 + 20
	icmpUnreachable     = 3
	protocolUnreachable = 2
)

// finish checks that nothing but ESP was on the wire, and no sequence number
// twice.
func (s *soak) finish(wire *lab.Capture) {
	s.Helper()
	// On a busy machine it may have missed some, of which nothing is known.
	packets, err := wire.Stop()
	if err != nil {
		s.Logf("the wire: %v", err)
	}
	// Where a daemon is dead, the kernel says that nobody wants ESP. There is
	// nothing of an inner packet in that.
	_, others := lab.CountESP(packets)
	others = slices.DeleteFunc(others, func(p lab.Packet) bool {
		return len(p.Data) >= esp+2 && p.Data[14] == 0x45 && p.Data[14+9] == unix.IPPROTO_ICMP &&
			p.Data[esp] == icmpUnreachable && p.Data[esp+1] == protocolUnreachable
	})
	if len(others) > 0 {
		s.Errorf("%d packets on the wire are not ESP, such as %v", len(others), others[0])
	}
	seen := map[[8]byte]bool{}
	for _, p := range packets {
		if len(p.Data) < esp+8 || p.Data[14] != 0x45 || p.Data[14+9] != 50 {
			continue
		}
		number := [8]byte(p.Data[esp:])
		if seen[number] {
			s.Errorf("SPI and sequence number %x were sent twice", number)
		}
		seen[number] = true
	}
	s.done["packets on the wire"] += len(seen)
}

// footprint is what a daemon takes.
type footprint struct {
	Links, Routes []string
	Descriptors   int
	Threads       int
	Goroutines    int
	Memory        int   // KiB, resident
	State         int64 // bytes of files that outlive it
}

func (s *soak) footprint(host int) (f footprint) {
	s.Helper()
	h := s.hosts[host]
	var err error
	if f.Links, err = h.Links(); err != nil {
		s.Fatal(err)
	}
	if f.Routes, err = h.Routes(); err != nil {
		s.Fatal(err)
	}
	slices.Sort(f.Routes)
	proc := fmt.Sprintf("/proc/%d/", s.daemon(host))
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		s.Fatal(err)
	}
	f.Descriptors = len(fds)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		s.Fatal(err)
	}
	number := func(pattern string) (n int) {
		if found := all(string(status), pattern); len(found) == 1 {
			n, _ = strconv.Atoi(found[0])
		}
		return n
	}
	f.Threads, f.Memory = number(`Threads:\s+(\d+)`), number(`VmRSS:\s+(\d+)`)
	var statistics control.StatisticsResult
	if err := json.Unmarshal([]byte(programs.Output(s, h, "ipsecd -status -json")), &statistics); err != nil {
		s.Fatal(err)
	}
	f.Goroutines = statistics.Goroutines
	for _, dir := range []string{filepath.Join(h.Path("/run/ifipsec"), programs.RunDir(h)), h.Path(diskDir)} {
		files, _ := filepath.Glob(filepath.Join(dir, "state", "*"))
		for _, file := range files {
			if st, err := os.Stat(file); err == nil {
				f.State += st.Size()
			}
		}
	}
	return f
}
