package spd

import "sync/atomic"

// MaxManualReqID is the highest reqid that level unique takes as it is given
// (FreeBSD's IPSEC_MANUAL_REQID_MAX). Those above it are handed out.
const MaxManualReqID = 0x3fff

// ReqIDs hands out reqids, one after the other from MaxManualReqID+1 up and
// from there again after the last one. The zero value is ready for use by
// several goroutines. Whoever hands out reqids in one system should share one.
type ReqIDs struct {
	count atomic.Uint64
}

// Next returns another reqid.
func (r *ReqIDs) Next() uint32 {
	const first, all = MaxManualReqID + 1, 1<<32 - (MaxManualReqID + 1)
	return uint32(first + (r.count.Add(1)-1)%all)
}

// Skip makes sure that a reqid is not handed out soon which something has that
// a process before this one left. It must be called before the first Next.
func (r *ReqIDs) Skip(reqid uint32) {
	if reqid > MaxManualReqID {
		r.count.Store(max(r.count.Load(), uint64(reqid-MaxManualReqID)))
	}
}
