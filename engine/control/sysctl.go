package control

// SysctlsRequest asks for the variables of package sysctl.
type SysctlsRequest struct{}

// SysctlsResult is the variables in the order in which they are listed.
type SysctlsResult struct {
	Variables []Sysctl `json:"variables"`
}

// Sysctl is a variable with its value.
type Sysctl struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// SetSysctlRequest gives a variable another value. ENOENT: there is no such
// variable. EINVAL: the value is out of its range.
type SetSysctlRequest struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// SetSysctlResult has the value before.
type SetSysctlResult struct {
	Old int64 `json:"old"`
}
