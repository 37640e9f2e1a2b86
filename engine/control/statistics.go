package control

// StatisticsRequest asks for what the data plane has counted.
type StatisticsRequest struct{}

// StatisticsResult is what it has counted since the daemon started.
type StatisticsResult struct {
	// ESP is about all packets of protocol ESP, as netstat -s -p esp has it.
	ESP        []Counter             `json:"esp"`
	Interfaces []InterfaceStatistics `json:"interfaces,omitzero"` // in order of creation
}

// InterfaceStatistics is about the packets of one interface.
type InterfaceStatistics struct {
	Name     string    `json:"name"`
	Counters []Counter `json:"counters"`
}

// Counter is a number of packets, octets or errors.
type Counter struct {
	Name  string `json:"name"` // short, for programs
	Text  string `json:"text"` // what stands after the number
	Value uint64 `json:"value"`
}
