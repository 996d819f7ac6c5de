package archivepb

import "pelago/shard/pack"

// Chunks are the chunks of an instance in a pack, as records.
func Chunks(chunks []pack.Chunk) []*Chunk {
	all := make([]*Chunk, len(chunks))
	for i, c := range chunks {
		all[i] = &Chunk{Offset: c.Offset, Length: c.Length, At: c.At, Compressed: c.Compressed, Filter: uint32(c.Filter)}
		if s := c.Samples; s != (pack.Samples{}) {
			all[i].Samples = &Samples{
				Offset: s.Offset, Length: s.Length, Width: int32(s.Width),
				Bytes: int32(s.Bytes), Stride: int32(s.Stride), BigEndian: s.BigEndian,
			}
		}
	}
	return all
}

// PackChunks is the inverse of [Chunks].
func PackChunks(records []*Chunk) []pack.Chunk {
	all := make([]pack.Chunk, len(records))
	for i, c := range records {
		all[i] = pack.Chunk{Offset: c.GetOffset(), Length: c.GetLength(), At: c.GetAt(), Compressed: c.GetCompressed(), Filter: byte(c.GetFilter())}
		if s := c.GetSamples(); s != nil {
			all[i].Samples = pack.Samples{
				Offset: s.Offset, Length: s.Length, Width: int(s.Width),
				Bytes: int(s.Bytes), Stride: int(s.Stride), BigEndian: s.BigEndian,
			}
		}
	}
	return all
}
