package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"ifipsec/engine/journal"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// renewer returns what makes of the records that a machine's end has left those of
// a machine that has just been started: the clock began anew, there are no links,
// and the SAs' memory is lost, so that they go on above their bounds.
func (e *Engine) renewer(now journal.Owner) journal.Renew {
	return func(from journal.Owner, memory *journal.Memory, records []journal.Record) ([]journal.Record, error) {
		k, err := decode(records)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
		}
		r := renewal{kept: k, spis: make(map[uint32]struct{}, len(k.sas)), alloc: memory.Alloc}
		for i := range k.sas {
			r.spis[k.sas[i].SPI] = struct{}{}
		}
		if c := e.newClock(k.general.Offset); from.Boot != now.Boot {
			r.ahead = c.Ahead(time.Unix(0, int64(k.general.Seen)), k.general.Offset)
			r.kept.general.Offset, r.kept.general.Seen = c.Offset(), time.Duration(c.Now().UnixNano())
		}
		renewed := make([]journal.Record, 0, len(records))
		for _, rec := range records {
			wanted, err := r.record(&rec)
			if err != nil {
				return nil, err
			}
			if wanted {
				renewed = append(renewed, rec)
			}
		}
		if len(records) > 0 {
			e.log.Info("what was kept on the disk is used; the sequence numbers go on above all that may have been used",
				"SAs", len(k.sas), "interfaces", len(k.interfaces), "times are ahead by", r.ahead)
		}
		return renewed, nil
	}
}

// renewal is one of a journal.
type renewal struct {
	kept  kept
	spis  map[uint32]struct{} // of the SAs
	ahead time.Duration       // what times are later than they were
	alloc func(size int) (offset int64, mem []byte, err error)
}

// record renews a record, or says that it is not wanted any more. The errors are
// those of alloc, and such that wrap ErrCorrupt.
func (r *renewal) record(rec *journal.Record) (wanted bool, err error) {
	switch rec.Kind {
	case kindGeneral:
		rec.Value, err = json.Marshal(r.kept.general)
	case kindSA:
		return true, r.sa(rec)
	case kindMark:
		// A death can leave one without its SA.
		_, wanted = r.spis[uint32(rec.ID)]
		return wanted, nil
	case kindPolicy:
		var p spd.Policy
		if p, err = spd.DecodePolicy(rec.Value); err == nil {
			p.Created = p.Created.Add(r.ahead)
			rec.Value, err = p.Append(nil)
		}
	case kindLink:
		rec.Value, err = json.Marshal(link{})
	case kindCounters:
		return false, nil
	}
	return true, err
}

func (r *renewal) sa(rec *journal.Record) error {
	s, err := sad.DecodeSnapshot(rec.Value)
	if err != nil {
		return fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
	}
	defer func() {
		clear(s.AuthKey)
		clear(s.EncryptKey)
	}()
	s.Created = s.Created.Add(r.ahead)
	mark, ok := r.kept.marks[s.SPI]
	if !ok && s.Size != 0 {
		return fmt.Errorf("%w: the SA with SPI %d has no mark", journal.ErrCorrupt, s.SPI)
	}
	if err := s.Resume(mark, r.alloc); err != nil {
		err = fmt.Errorf("SA with SPI %d: %w", s.SPI, err)
		if errors.Is(err, syscall.EINVAL) {
			err = fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
		}
		return err
	}
	value, err := s.Append(nil)
	if err != nil {
		return err
	}
	clear(rec.Value) // there are keys in it
	rec.Value = value
	return nil
}
