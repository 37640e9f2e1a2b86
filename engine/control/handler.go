// Package control is the protocol between ifconfig and the daemon: typed
// requests for what FreeBSD's interface ioctls do, over a Unix stream socket.
//
// A message is one JSON value on one line of bounded length. A client sends a
// request, waits for its response, and may send the next. An error comes back
// as an errno of Linux with a message. Everybody may read the status; changes
// are for root and for the daemon's own user.
package control

// Handler does what the requests ask for. The daemon implements it with its
// engine, and [Client] by asking the daemon. Methods may be called
// concurrently.
//
// [Serve] checks requests first, so that handlers need only know the rules that
// are about interfaces. An error wraps the [syscall.Errno] that FreeBSD answers
// with: ENXIO for an interface that there is none of.
type Handler interface {
	Create(CreateRequest) (CreateResult, error)
	Destroy(DestroyRequest) error
	SetTunnel(SetTunnelRequest) error
	DeleteTunnel(DeleteTunnelRequest) error
	SetReqID(SetReqIDRequest) error
	SetTunnelFIB(SetTunnelFIBRequest) error
	SetFIB(SetFIBRequest) error
	AddAddress(AddAddressRequest) error
	RemoveAddress(RemoveAddressRequest) error
	SetUp(SetUpRequest) error
	SetMTU(SetMTURequest) error
	Rename(RenameRequest) error
	SetDescription(SetDescriptionRequest) error
	AddGroup(AddGroupRequest) error
	RemoveGroup(RemoveGroupRequest) error
	SetMetric(SetMetricRequest) error
	Interfaces(InterfacesRequest) (InterfacesResult, error)
	Statistics(StatisticsRequest) (StatisticsResult, error)
	Sysctls(SysctlsRequest) (SysctlsResult, error)
	SetSysctl(SetSysctlRequest) (SetSysctlResult, error)
	Diagnose(DiagnoseRequest) (DiagnoseResult, error)
}
