package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// answerTimeout bounds the wait for a daemon that hangs.
const answerTimeout = time.Minute

// Client is a connection to the daemon. Its methods are those of [Handler];
// an error that the daemon answers with is an [*Error]. It may be used by
// several goroutines.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	r    *bufio.Reader
}

var _ Handler = (*Client)(nil)

// Dial connects to the daemon's socket. An error wraps ENOENT or ECONNREFUSED
// if no daemon listens there.
func Dial(path string) (*Client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, r: bufio.NewReader(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Create implements [Handler].
func (c *Client) Create(q CreateRequest) (CreateResult, error) {
	return ask[CreateResult](c, "create", q)
}

// Destroy implements [Handler].
func (c *Client) Destroy(q DestroyRequest) error { return tell(c, "destroy", q) }

// SetTunnel implements [Handler].
func (c *Client) SetTunnel(q SetTunnelRequest) error { return tell(c, "set_tunnel", q) }

// DeleteTunnel implements [Handler].
func (c *Client) DeleteTunnel(q DeleteTunnelRequest) error { return tell(c, "delete_tunnel", q) }

// SetReqID implements [Handler].
func (c *Client) SetReqID(q SetReqIDRequest) error { return tell(c, "set_reqid", q) }

// SetTunnelFIB implements [Handler].
func (c *Client) SetTunnelFIB(q SetTunnelFIBRequest) error { return tell(c, "set_tunnel_fib", q) }

// SetFIB implements [Handler].
func (c *Client) SetFIB(q SetFIBRequest) error { return tell(c, "set_fib", q) }

// AddAddress implements [Handler].
func (c *Client) AddAddress(q AddAddressRequest) error { return tell(c, "add_address", q) }

// RemoveAddress implements [Handler].
func (c *Client) RemoveAddress(q RemoveAddressRequest) error { return tell(c, "remove_address", q) }

// SetUp implements [Handler].
func (c *Client) SetUp(q SetUpRequest) error { return tell(c, "set_up", q) }

// SetMTU implements [Handler].
func (c *Client) SetMTU(q SetMTURequest) error { return tell(c, "set_mtu", q) }

// Rename implements [Handler].
func (c *Client) Rename(q RenameRequest) error { return tell(c, "rename", q) }

// SetDescription implements [Handler].
func (c *Client) SetDescription(q SetDescriptionRequest) error {
	return tell(c, "set_description", q)
}

// AddGroup implements [Handler].
func (c *Client) AddGroup(q AddGroupRequest) error { return tell(c, "add_group", q) }

// RemoveGroup implements [Handler].
func (c *Client) RemoveGroup(q RemoveGroupRequest) error { return tell(c, "remove_group", q) }

// SetMetric implements [Handler].
func (c *Client) SetMetric(q SetMetricRequest) error { return tell(c, "set_metric", q) }

// Interfaces implements [Handler].
func (c *Client) Interfaces(q InterfacesRequest) (InterfacesResult, error) {
	return ask[InterfacesResult](c, "interfaces", q)
}

// AllStatistics is Statistics with all SAs. Those that come or go meanwhile may be
// missing or told of twice.
func (c *Client) AllStatistics() (StatisticsResult, error) {
	all, err := c.Statistics(StatisticsRequest{})
	for err == nil && all.MoreSAs {
		var more StatisticsResult
		more, err = c.Statistics(StatisticsRequest{SkipSAs: len(all.SAs)})
		all.SAs = append(all.SAs, more.SAs...)
		all.MoreSAs = more.MoreSAs && len(more.SAs) > 0
	}
	return all, err
}

// Diagnose implements [Handler].
func (c *Client) Diagnose(q DiagnoseRequest) (DiagnoseResult, error) {
	return ask[DiagnoseResult](c, "diagnose", q)
}

// Statistics implements [Handler].
func (c *Client) Statistics(q StatisticsRequest) (StatisticsResult, error) {
	return ask[StatisticsResult](c, "statistics", q)
}

// Sysctls implements [Handler].
func (c *Client) Sysctls(q SysctlsRequest) (SysctlsResult, error) {
	return ask[SysctlsResult](c, "sysctls", q)
}

// SetSysctl implements [Handler].
func (c *Client) SetSysctl(q SetSysctlRequest) (SetSysctlResult, error) {
	return ask[SetSysctlResult](c, "set_sysctl", q)
}

func tell(c *Client, op string, args any) error {
	_, err := ask[none](c, op, args)
	return err
}

// ask sends one request and waits for its response.
func ask[R any](c *Client, op string, args any) (result R, err error) {
	q, err := json.Marshal(args)
	if err != nil {
		return result, fmt.Errorf("%s: %w", op, err)
	}
	line, err := json.Marshal(request{Op: op, Args: q})
	if err != nil {
		return result, fmt.Errorf("%s: %w", op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return result, err
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return result, fmt.Errorf("%s: %w", op, err)
	}
	line, err = readLine(c.r, maxResponse)
	if err != nil {
		return result, fmt.Errorf("answer to %s: %w", op, err)
	}
	var r response
	if err := json.Unmarshal(line, &r); err != nil {
		return result, fmt.Errorf("answer to %s: %w", op, err)
	}
	if r.Errno != 0 {
		return result, &Error{Errno: r.Errno, Message: r.Message}
	}
	if err := json.Unmarshal(r.Result, &result); err != nil {
		return result, fmt.Errorf("answer to %s: %w", op, err)
	}
	return result, nil
}
