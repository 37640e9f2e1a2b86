package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Ping is a number of ICMP echo requests and how they are sent.
type Ping struct {
	To       netip.Addr
	From     netip.Addr    // zero: the system's choice
	Count    int           // 0: 1
	Size     int           // of the data in bytes; 0: 56
	Interval time.Duration // from one request to the next
	Timeout  time.Duration // for the last answer; 0: a second
	Output   io.Writer     // told what ping(8) would print; nil: nobody

	// Answered is told the round-trip time of each answer; nil: nobody.
	Answered func(time.Duration)
}

// PingResult says what became of a [Ping].
type PingResult struct {
	Sent, Received int
}

// Ping sends echo requests and counts the answers that are right in every byte.
// A request that the system refuses to send counts as sent: what is lost on the
// way out is lost too.
func (h *Host) Ping(ctx context.Context, p Ping) (PingResult, error) {
	var conn *icmp.PacketConn
	err := h.Do(func() (err error) {
		conn, err = p.listen()
		return err
	})
	var result PingResult
	if err == nil {
		result, err = p.run(ctx, conn)
	}
	if err != nil {
		return result, fmt.Errorf("%s: ping %s: %w", h.Name, p.To, err)
	}
	return result, nil
}

// Run is [Host.Ping] on the machine that the calling program runs on.
func (p Ping) Run(ctx context.Context) (PingResult, error) {
	conn, err := p.listen()
	if err != nil {
		return PingResult{}, fmt.Errorf("ping %s: %w", p.To, err)
	}
	result, err := p.run(ctx, conn)
	if err != nil {
		return result, fmt.Errorf("ping %s: %w", p.To, err)
	}
	return result, nil
}

// run sends and receives with conn, which it closes.
func (p Ping) run(ctx context.Context, conn *icmp.PacketConn) (result PingResult, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if p.Count == 0 {
		p.Count = 1
	}
	if p.Size == 0 {
		p.Size = 56
	}
	if p.Timeout == 0 {
		p.Timeout = time.Second
	}
	if p.Output == nil {
		p.Output = io.Discard
	}

	// Others on the host may be waiting for answers too: random data tells ours.
	data := make([]byte, p.Size)
	rand.Read(data)
	id := int(binary.NativeEndian.Uint16(append(data[:len(data):len(data)], 0, 0)))

	start := time.Now()
	sent := make([]time.Time, p.Count) // zero once it is answered
	answers, done := make(chan int), make(chan struct{})
	defer close(done)
	go receive(conn, p, id, data, answers, done)

	fmt.Fprintf(p.Output, "PING %s: %d data bytes\n", p.To, p.Size)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for result.Received < p.Count {
		select {
		case <-timer.C:
			if result.Sent == p.Count {
				p.summary(result)
				return result, nil
			}
			sent[result.Sent] = time.Now()
			msg, err := (&icmp.Message{Type: echoRequest(p.To), Body: &icmp.Echo{ID: id, Seq: result.Sent, Data: data}}).Marshal(nil)
			if err != nil {
				return result, err
			}
			result.Sent++
			if _, err := conn.WriteTo(msg, &net.IPAddr{IP: p.To.AsSlice(), Zone: p.To.Zone()}); err != nil {
				fmt.Fprintf(p.Output, "ping: %v\n", err)
			}
			if result.Sent == p.Count {
				timer.Reset(p.Timeout)
			} else {
				timer.Reset(time.Until(start.Add(time.Duration(result.Sent) * p.Interval)))
			}
		case seq, ok := <-answers:
			if !ok {
				return result, context.Cause(ctx)
			}
			if seq >= len(sent) || sent[seq].IsZero() {
				fmt.Fprintf(p.Output, "%d bytes from %s: icmp_seq=%d (DUP!)\n", p.Size+8, p.To, seq)
				continue
			}
			took := time.Since(sent[seq])
			fmt.Fprintf(p.Output, "%d bytes from %s: icmp_seq=%d time=%.3f ms\n",
				p.Size+8, p.To, seq, float64(took.Nanoseconds())/1e6)
			if p.Answered != nil {
				p.Answered(took)
			}
			sent[seq] = time.Time{}
			result.Received++
		}
	}
	p.summary(result)
	return result, nil
}

func (p Ping) summary(r PingResult) {
	fmt.Fprintf(p.Output, "--- %s ping statistics ---\n%d packets transmitted, %d packets received, %.1f%% packet loss\n",
		p.To, r.Sent, r.Received, 100*float64(r.Sent-r.Received)/float64(r.Sent))
}

// receive sends the sequence numbers of the right answers until conn or done is
// closed.
func receive(conn *icmp.PacketConn, p Ping, id int, data []byte, answers chan<- int, done <-chan struct{}) {
	defer close(answers)
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		addr, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		if addr.Unmap() != p.To.WithZone("") {
			continue
		}
		msg, err := icmp.ParseMessage(echoRequest(p.To).Protocol(), buf[:n])
		if err != nil || (msg.Type != ipv4.ICMPTypeEchoReply && msg.Type != ipv6.ICMPTypeEchoReply) {
			continue
		}
		if echo, ok := msg.Body.(*icmp.Echo); ok && echo.ID == id && bytes.Equal(echo.Data, data) {
			select {
			case answers <- echo.Seq:
			case <-done:
				return
			}
		}
	}
}

func (p Ping) listen() (*icmp.PacketConn, error) {
	network, local := "ip4:icmp", "0.0.0.0"
	if p.To.Is6() {
		network, local = "ip6:ipv6-icmp", "::"
	}
	if p.From.IsValid() {
		local = p.From.String()
	}
	return icmp.ListenPacket(network, local)
}

func echoRequest(to netip.Addr) icmp.Type {
	if to.Is6() {
		return ipv6.ICMPTypeEchoRequest
	}
	return ipv4.ICMPTypeEcho
}
