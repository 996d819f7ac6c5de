package catalog

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
)

// The version of what this code writes, and the least version of a reader that
// understands it. A command that an older reader must not skip raises both.
const (
	entryVersion   = 1
	entryMinReader = 1
)

// EncodeEntry returns the durable form of commands.
func EncodeEntry(commands []Command) ([]byte, error) {
	e := &catalogpb.Entry{Version: entryVersion, MinReader: entryMinReader, Commands: make([]*catalogpb.Command, len(commands))}
	for i, c := range commands {
		pb, err := toProto(c)
		if err != nil {
			return nil, err
		}
		e.Commands[i] = pb
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fault.New(fault.Invalid, "catalog: encode entry: %w", err)
	}
	return b, nil
}

// DecodeEntry reads an entry. An entry for a newer reader, and a command of an
// unknown type, are fault.Unsupported: the caller stops applying and never
// skips. Bytes that are no entry are fault.Corrupt.
func DecodeEntry(b []byte) ([]Command, error) {
	var e catalogpb.Entry
	if err := proto.Unmarshal(b, &e); err != nil {
		return nil, fault.New(fault.Corrupt, "catalog: an entry cannot be read: %w", err)
	}
	if e.MinReader > entryVersion {
		return nil, fault.New(fault.Unsupported, "catalog: an entry needs version %d of pelago's catalogue, this is %d", e.MinReader, entryVersion)
	}
	if e.Version == 0 {
		return nil, fault.New(fault.Corrupt, "catalog: an entry has no version")
	}
	commands := make([]Command, len(e.Commands))
	for i, pb := range e.Commands {
		c, err := fromProto(pb)
		if err != nil {
			return nil, err
		}
		commands[i] = c
	}
	return commands, nil
}

func toProto(c Command) (*catalogpb.Command, error) {
	switch c := c.(type) {
	case *SeriesFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Series{Series: &catalogpb.SeriesFact{
			Origin: c.Origin, Site: valid(c.Site), AsOf: c.AsOf, Study: c.Study, Series: c.Series, Issuer: valid(c.Issuer),
			Attributes: c.Attributes, Instances: c.Instances, Bytes: c.Bytes, UidHash: c.UIDHash[:],
			Classes: c.Classes, Reserved: c.Reserved, Arrived: c.Arrived,
		}}}, nil
	case *TombstoneFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Tombstone{Tombstone: &catalogpb.TombstoneFact{
			Study: c.Study, Series: c.Series, Instance: c.Instance, Tick: c.Tick, By: valid(c.By),
		}}}, nil
	case *RestoreFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Restore{Restore: &catalogpb.RestoreFact{
			Study: c.Study, Series: c.Series, Instance: c.Instance, Tick: c.Tick, By: valid(c.By),
		}}}, nil
	case *RegistryFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Registry{Registry: &catalogpb.RegistryFact{
			Kind: c.Kind, Name: c.Name, Value: c.Value,
		}}}, nil
	}
	return nil, fault.New(fault.Unsupported, "catalog: no encoding for command %T", c)
}

// valid returns text as protobuf takes it: what is no UTF-8 as U+FFFD.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func fromProto(pb *catalogpb.Command) (Command, error) {
	switch k := pb.GetKind().(type) {
	case *catalogpb.Command_Series:
		s := k.Series
		if len(s.GetUidHash()) != 32 {
			return nil, fault.New(fault.Corrupt, "catalog: a series fact has a hash of %d bytes", len(s.GetUidHash()))
		}
		return &SeriesFact{
			Origin: s.Origin, Site: s.Site, AsOf: s.AsOf, Study: s.Study, Series: s.Series, Issuer: s.Issuer,
			Attributes: s.Attributes, Instances: s.Instances, Bytes: s.Bytes, UIDHash: [32]byte(s.UidHash),
			Classes: s.Classes, Reserved: s.Reserved, Arrived: s.Arrived,
		}, nil
	case *catalogpb.Command_Tombstone:
		t := k.Tombstone
		return &TombstoneFact{t.GetStudy(), t.GetSeries(), t.GetInstance(), t.GetTick(), t.GetBy()}, nil
	case *catalogpb.Command_Restore:
		r := k.Restore
		return &RestoreFact{r.GetStudy(), r.GetSeries(), r.GetInstance(), r.GetTick(), r.GetBy()}, nil
	case *catalogpb.Command_Registry:
		r := k.Registry
		return &RegistryFact{r.GetKind(), r.GetName(), r.GetValue()}, nil
	}
	return nil, fault.New(fault.Unsupported, "catalog: a command of unknown type: a newer version wrote it")
}
