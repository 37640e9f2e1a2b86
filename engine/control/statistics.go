package control

import (
	"net/netip"
	"time"
)

// StatisticsRequest asks for what the data plane has counted.
type StatisticsRequest struct {
	// SkipSAs is how many SAs were told of already. An answer has SAsAtOnce at
	// most; see [Client.AllStatistics].
	SkipSAs int `json:"skip_sas,omitzero"`
}

// SAsAtOnce is how many SAs an answer tells of.
const SAsAtOnce = 5000

// StatisticsResult is what it has counted since the daemon started, and how it is.
type StatisticsResult struct {
	// ESP is about all packets of protocol ESP, as netstat -s -p esp has it.
	ESP        []Counter             `json:"esp"`
	Interfaces []InterfaceStatistics `json:"interfaces,omitzero"` // in order of creation
	SAs        []SAStatistics        `json:"sas,omitzero"`        // of ESP, in the order of setkey -D
	MoreSAs    bool                  `json:"more_sas,omitzero"`   // than these
	Goroutines int                   `json:"goroutines,omitzero"` // of the daemon, now
}

// SAStatistics is about the packets of one SA of ESP.
type SAStatistics struct {
	SPI      uint32     `json:"spi"`
	Src      netip.Addr `json:"src"` // a link-local one with its link as zone
	Dst      netip.Addr `json:"dst"`
	ReqID    uint32     `json:"reqid"`
	State    string     `json:"state"`
	Suite    string     `json:"suite"`    // its algorithms, by setkey's names
	Sequence uint64     `json:"sequence"` // the last number sent, or the highest received
	Created  time.Time  `json:"created,omitzero"`
	Used     time.Time  `json:"used,omitzero"` // when a packet passed last
	Counters []Counter  `json:"counters,omitzero"`
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
