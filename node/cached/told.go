package cached

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/cached/cachedpb"
	"pelago/node/far"
)

// Told is a manifest and what the catalogue said when it was asked for: the node
// knew at least that much.
type Told struct {
	*far.Manifest
	AsOf    uint64   // the node's local number
	UIDHash [16]byte // of the set of SOP Instance UIDs
	Asked   time.Time
}

const (
	// toldShare is the part of the limit that manifests may have, beside it: they
	// are a hundredth of the pixels of a CT, and for small instances a tenth.
	toldShare = 16
	// maxTold is the largest manifest that is kept, before it is compressed.
	maxTold = 64 << 20
	// toldSlice is the part of the manifests that goes when they are too many.
	toldSlice = 8
)

// toldKey names what a node told of a series. UIDs and ids hold no zero byte.
func toldKey(study, series, node string) string { return study + "\x00" + series + "\x00" + node }

// openedRow is when a manifest was last opened, in Unix microseconds, and its
// bytes at rest: both 8 bytes, big endian.
func openedRow(opened time.Time, bytes int) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(opened.UnixMicro()))
	return binary.BigEndian.AppendUint64(b, uint64(bytes))
}

func parseOpened(b []byte) (opened, bytes int64, ok bool) {
	if len(b) != 16 {
		return 0, 0, false
	}
	return int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:])), true
}

// countTold adds up what nodes told.
func (s *Store) countTold() error {
	var total int64
	err := s.o.Opened.Each(func(_ string, value []byte) error {
		_, bytes, _ := parseOpened(value)
		total += bytes
		return nil
	})
	s.told.Store(total)
	return err
}

// Tell keeps what a node told of a series. One that is too large is not kept.
// fault.Unavailable while there is no key to keep it under.
func (s *Store) Tell(t Told) error {
	if err := s.ready(); err != nil {
		return err
	}
	record, err := s.encodeTold(t)
	if err != nil {
		return err
	}
	if proto.Size(record) > maxTold {
		return nil
	}
	b, err := proto.Marshal(record)
	if err != nil {
		return fault.New(fault.Invalid, "cached: %w", err)
	}
	b = s2.EncodeBetter(nil, b)
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.told.Load()+int64(len(b)) > s.o.Limit/toldShare {
		if err := s.forgetTold(); err != nil {
			return err
		}
	}
	if err := s.o.ReserveTold(int64(len(b))); err != nil {
		return err
	}
	key := toldKey(t.Study, t.Series, t.Node)
	if old, ok, err := s.o.Opened.Get(key); err == nil && ok {
		_, bytes, _ := parseOpened(old)
		s.told.Add(-bytes)
	}
	// The small row first: a manifest without one would never go.
	if err := s.o.Opened.Note(map[string][]byte{key: openedRow(time.Now(), len(b))}); err != nil {
		return err
	}
	s.told.Add(int64(len(b)))
	return s.o.Told.Note(map[string][]byte{key: b})
}

// Recall returns what a node told of a series; fault.NotFound if it is not kept.
func (s *Store) Recall(study, series, node string) (Told, error) {
	key := toldKey(study, series, node)
	b, ok, err := s.o.Told.Get(key)
	if err != nil {
		return Told{}, err
	}
	if !ok {
		return Told{}, fault.New(fault.NotFound, "cached: no manifest of the series")
	}
	t, err := s.decodeTold(b)
	if err != nil {
		return Told{}, err
	}
	if t.Study != study || t.Series != series || t.Node != node {
		return Told{}, fault.New(fault.Corrupt, "cached: a manifest of another series")
	}
	return t, s.touchTold(key, len(b))
}

// touchTold notes that a manifest is being opened.
func (s *Store) touchTold(key string, bytes int) error {
	now := time.Now()
	value, ok, err := s.o.Opened.Get(key)
	if err != nil {
		return err
	}
	if opened, _, _ := parseOpened(value); ok && now.Sub(time.UnixMicro(opened)) < noteAfter {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, ok, err := s.o.Told.Get(key); err != nil || !ok {
		return err
	}
	return s.o.Opened.Note(map[string][]byte{key: openedRow(now, bytes)})
}

// forgetTold drops the eighth of the manifests that was opened longest ago.
// writing is held.
func (s *Store) forgetTold() error {
	type row struct {
		key           string
		opened, bytes int64
	}
	var all []row
	err := s.o.Opened.Each(func(key string, value []byte) error {
		opened, bytes, _ := parseOpened(value)
		all = append(all, row{strings.Clone(key), opened, bytes})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b row) int { return cmp.Compare(a.opened, b.opened) })
	most := s.o.Limit / toldShare * (toldSlice - 1) / toldSlice
	var keys []string
	left := s.told.Load()
	for _, r := range all {
		if left <= most {
			break
		}
		left -= r.bytes
		keys = append(keys, r.key)
	}
	return s.dropRows(keys)
}

// dropTold drops the manifests of series of which gone says so. writing is held.
func (s *Store) dropTold(gone func(study, series string, when time.Time) bool) error {
	var keys []string
	err := s.o.Opened.Each(func(key string, value []byte) error {
		study, rest, _ := strings.Cut(key, "\x00")
		series, _, _ := strings.Cut(rest, "\x00")
		if opened, _, _ := parseOpened(value); gone(study, series, time.UnixMicro(opened)) {
			keys = append(keys, strings.Clone(key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.dropRows(keys)
}

func (s *Store) dropRows(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	rows := map[string][]byte{}
	for _, key := range keys {
		rows[key] = nil
	}
	if err := s.o.Told.Note(rows); err != nil {
		return err
	}
	if err := s.o.Opened.Note(rows); err != nil {
		return err
	}
	return s.countTold()
}

func (s *Store) encodeTold(t Told) (*cachedpb.Series, error) {
	record := &cachedpb.Series{
		Version: rowVersion, Node: t.Node, Study: t.Study, Series: t.Series,
		AsOf: t.AsOf, UidHash: t.UIDHash[:], Asked: t.Asked.UnixMicro(),
		Packs: make([]*cachedpb.Pack, len(t.Packs)), Instances: make([]*cachedpb.Instance, len(t.Instances)),
	}
	wrapped := map[[16]byte][]byte{} // a study has one key, nearly always
	for i := range t.Packs {
		p := &t.Packs[i]
		if wrapped[p.KeyID] == nil {
			key, err := s.o.Ring.Wrap(p.KeyID, p.Key)
			if err != nil {
				return nil, err
			}
			wrapped[p.KeyID] = key
		}
		record.Packs[i] = &cachedpb.Pack{Pack: p.Record(), Key: wrapped[p.KeyID]}
	}
	for i := range t.Instances {
		in := &t.Instances[i]
		record.Instances[i] = &cachedpb.Instance{Record: in.Record, Header: in.Header, Pack: uint32(in.Pack + 1), Chunks: archivepb.Chunks(in.Chunks), Lost: in.Lost}
	}
	return record, nil
}

func (s *Store) decodeTold(b []byte) (Told, error) {
	if n, err := s2.DecodedLen(b); err != nil || n > maxTold {
		return Told{}, fault.New(fault.Corrupt, "cached: a manifest that does not parse")
	}
	b, err := s2.Decode(nil, b)
	if err != nil {
		return Told{}, fault.New(fault.Corrupt, "cached: a manifest that does not parse: %w", err)
	}
	var record cachedpb.Series
	if err := proto.Unmarshal(b, &record); err != nil {
		return Told{}, fault.New(fault.Corrupt, "cached: a manifest that does not parse: %w", err)
	}
	if record.Version != rowVersion || len(record.UidHash) != 16 {
		return Told{}, fault.New(fault.Unsupported, "cached: a manifest of version %d", record.Version)
	}
	t := Told{
		Manifest: &far.Manifest{
			Node: record.Node, Study: record.Study, Series: record.Series,
			Packs: make([]far.Pack, len(record.Packs)), Instances: make([]far.Instance, len(record.Instances)),
		},
		AsOf: record.AsOf, UIDHash: [16]byte(record.UidHash), Asked: time.UnixMicro(record.Asked),
	}
	for i, p := range record.Packs {
		if t.Packs[i], err = s.decodePack(p); err != nil {
			return Told{}, err
		}
	}
	for i, in := range record.Instances {
		if in.Record == nil || len(in.Record.Hash) != 32 || int(in.Pack) > len(t.Packs) {
			return Told{}, fault.New(fault.Corrupt, "cached: a manifest names no instance")
		}
		t.Instances[i] = far.Instance{Record: in.Record, Header: in.Header, Pack: int(in.Pack) - 1, Chunks: archivepb.PackChunks(in.Chunks), Lost: in.Lost}
		if len(in.Header) == 0 {
			t.Instances[i].Header = nil
		}
	}
	return t, nil
}

func (s *Store) decodePack(p *cachedpb.Pack) (far.Pack, error) {
	r := p.Pack
	if r == nil || len(r.Id) != 16 || len(r.Key) != 16 || len(r.Root) != 32 {
		return far.Pack{}, fault.New(fault.Corrupt, "cached: a manifest names no pack")
	}
	key, err := s.o.Ring.Unwrap([16]byte(r.Key), p.Key)
	if err != nil {
		return far.Pack{}, err
	}
	return far.PackOf(r, key), nil
}
