package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/blake3"

	"pelago/chaos/bench/input"
	"pelago/chaos/world"
	"pelago/dimse/dicom"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// striped is a series as a pack, and the pack as a stripe.
type striped struct {
	manifest *pack.Manifest
	key      seal.Key
	head     *stripe.Head
	geometry shard.Geometry
	shards   [][]byte
	frames   []frame
}

// frame is an image of the series.
type frame struct {
	number        int
	image         input.Instance
	pixels        int64 // where they begin in its data set
	first, leaves int64 // of the ciphertext: the whole segments that hold the image
	bytes         int64 // of these segments: the frame rounded out
	column        int   // that these are in; -1: they cross a border
}

// stripe packs, seals and encodes a series of CT.
func (b *bench) stripe(ctx context.Context, code shard.Code) (*striped, error) {
	s := &striped{key: seal.Key{3}}
	study := input.Population{Seed: seedImages, Size: 1}.Study(0)
	study.Modality, study.Class = "CT", input.CTImageStorage
	var sealed bytes.Buffer
	w := seal.NewWriter(&sealed, s.key)
	id := pack.ID{7, 1}
	codec := pack.NewCodec(0)
	defer codec.Close()
	p := codec.NewWriter(w, id)
	for n := range b.cut.images {
		image := input.Instance{Study: study, Series: 1, Number: 1 + n, Rows: b.cut.edge, Columns: b.cut.edge}
		data, err := dataSet(image)
		if err != nil {
			return nil, err
		}
		f := frame{number: n, image: image, pixels: int64(len(data)) - image.Bytes()}
		samples := pack.Samples{Offset: f.pixels, Length: image.Bytes(), Width: image.Columns, Bytes: 2, Stride: 1}
		if err := p.Add(bytes.NewReader(data), int64(len(data)), blake3.Sum256(data), samples, pack.Best, []byte("record")); err != nil {
			return nil, err
		}
		s.frames = append(s.frames, f)
	}
	var err error
	if s.manifest, err = p.Close(); err != nil {
		return nil, err
	}
	tail, err := s.manifest.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(tail); err != nil {
		return nil, err
	}
	root, size, err := w.Close()
	if err != nil {
		return nil, err
	}
	if s.geometry, err = shard.NewGeometry(code, size); err != nil {
		return nil, err
	}
	s.locate()
	return s, s.encode(ctx, sealed.Bytes(), stripe.Head{
		Stripe: shard.Stripe{Pack: id, Generation: 1}, Code: code, Size: size,
		Plaintext: s.manifest.Bytes + int64(len(tail)), Manifest: s.manifest.Bytes, Key: [16]byte{1}, Origin: "origin", Pack: root,
	})
}

// dataSet is an image without group 0002.
func dataSet(image input.Instance) ([]byte, error) {
	var file bytes.Buffer
	if err := image.Write(&file); err != nil {
		return nil, err
	}
	_, body, err := dicom.OpenFile(&file)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(body)
}

// locate finds where each frame is in the columns.
func (s *striped) locate() {
	for i := range s.frames {
		f := &s.frames[i]
		chunks := s.manifest.Entries[f.number].Chunks
		from, last := chunks[0].At, chunks[len(chunks)-1]
		f.first = from / seal.SegmentBytes
		f.leaves = (last.At+last.Compressed-1)/seal.SegmentBytes + 1 - f.first
		f.bytes = min(f.leaves*seal.LeafBytes, s.geometry.Size-f.first*seal.LeafBytes)
		column, _ := s.geometry.Locate(f.first * seal.LeafBytes)
		end, _ := s.geometry.Locate(f.first*seal.LeafBytes + f.bytes - 1)
		if f.column = column; end != column {
			f.column = -1
		}
	}
}

func (s *striped) encode(ctx context.Context, ciphertext []byte, head stripe.Head) (err error) {
	files := make([]bytes.Buffer, head.Code.N())
	to := make([]io.Writer, head.Code.N())
	for i := range to {
		to[i] = &files[i]
	}
	s.head, err = stripe.NewCoder().Encode(ctx, bytes.NewReader(ciphertext), head, to)
	for i := range files {
		s.shards = append(s.shards, files[i].Bytes())
	}
	return err
}

// sitting is one reader of a stripe: what it knows of its holders goes on.
type sitting struct {
	*striped
	holders *holders
	watched *watched
	client  *recall.Client
	pack    *recall.Pack
}

// sit opens a stripe as a reader of its seal would that knows nothing of its holders,
// and reads all of it once, so that what follows is asked of nodes that are known.
func (s *striped) sit(ctx context.Context, h *holders) (*sitting, error) {
	t := &sitting{striped: s, holders: h, watched: watching(held.Holders{Client: h.client})}
	t.client = recall.New(recall.Options{Holders: t.watched, Peers: recall.NewPeers(nil), Coder: stripe.NewCoder()})
	opened, err := t.client.Open(ctx, recall.Sealed{Stripe: s.head.Stripe, Code: s.head.Code, Root: s.head.Root()}, h.places())
	if err != nil {
		return nil, err
	}
	if t.pack, err = t.client.Pack(opened.Head, h.places()); err != nil {
		return nil, err
	}
	return t, t.warm(ctx)
}

// sitting has a stripe read by a reader that is connected at a rate, from holders of its
// own: what was cut or slow before would be felt for minutes by what it made hang.
func (b *bench) sitting(ctx context.Context, of *striped, link world.Link, rate world.Rate, use func(*sitting) error) error {
	return b.holders(ctx, len(of.shards), link, func(h *holders) error {
		if err := h.world.SetAccess(reader, world.Access{Up: rate, Down: rate}); err != nil {
			return err
		}
		if err := h.place(ctx, of.head, of.shards); err != nil {
			return err
		}
		t, err := of.sit(ctx, h)
		if err != nil {
			return err
		}
		return use(t)
	})
}

// warm reads every frame once.
func (t *sitting) warm(ctx context.Context) error {
	for _, f := range t.frames {
		if _, _, err := t.read(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// read reads a frame: its segments from the holders, verified; opened, expanded, and
// compared, which is not counted. It returns what that took, and what it cost.
func (t *sitting) read(ctx context.Context, f frame) (time.Duration, cost, error) {
	t.watched.take()
	before := t.holders.sent()
	began := time.Now()
	sealed := make([]byte, f.bytes)
	if _, err := t.pack.ReadAt(ctx, sealed, f.first*seal.LeafBytes); err != nil {
		return 0, cost{}, err
	}
	plain := seal.Reader(window{sealed, f.first * seal.LeafBytes}, t.geometry.Size, t.key)
	pixels := make([]byte, f.image.Bytes())
	_, err := pack.Instance(plain, &t.manifest.Entries[f.number]).ReadAt(pixels, f.pixels)
	took := time.Since(began)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, cost{}, err
	}
	if !bytes.Equal(pixels, f.image.Frame(0)) {
		return 0, cost{}, fmt.Errorf("frame %d came back as another", f.number)
	}
	c := cost{bytes: t.holders.sent() - before} // by now the end of the answer has been sent, too
	c.requests, c.sites = t.watched.take()
	return took, c, nil
}

// window is a part of a ciphertext, at its place.
type window struct {
	bytes []byte
	at    int64
}

// ReadAt implements io.ReaderAt.
func (w window) ReadAt(p []byte, off int64) (int, error) {
	if off < w.at || off > w.at+int64(len(w.bytes)) {
		return 0, fmt.Errorf("read at %d of a part from %d on", off, w.at)
	}
	n := copy(p, w.bytes[off-w.at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// within are the frames that lie in one column; of one column, unless it is negative.
func (s *striped) within(column int) (all []frame) {
	for _, f := range s.frames {
		if f.column >= 0 && (column < 0 || f.column == column) {
			all = append(all, f)
		}
	}
	return all
}

// figures are of frames that were read one after the other.
type figures struct {
	seconds []float64 // each
	over    []float64 // each over (round trip + bytes ÷ bandwidth)
	// Of those for which nothing was asked twice to be sooner:
	requests, sites []float64
	fetched         []float64 // bytes, over those of the frame's whole segments
	hedged          float64   // bytes that were asked for twice, over the others, since the reader began
}

// readAll reads so many frames, again and again from the beginning.
func (t *sitting) readAll(ctx context.Context, frames []frame, n int, rate world.Rate) (f figures, err error) {
	if len(frames) == 0 {
		return f, errors.New("the series is too short: no frame lies in one column")
	}
	counters := t.client.Counters()
	for i := range n {
		one := frames[i%len(frames)]
		hedges := counters.Hedged.Load()
		took, c, err := t.read(ctx, one)
		if err != nil {
			return f, err
		}
		f.seconds = append(f.seconds, took.Seconds())
		f.over = append(f.over, took.Seconds()/(farAway+rate.Time(one.bytes)).Seconds())
		if counters.Hedged.Load() == hedges {
			f.fetched = append(f.fetched, float64(c.bytes)/float64(one.bytes))
			f.requests, f.sites = append(f.requests, float64(c.requests)), append(f.sites, float64(c.sites))
		}
	}
	asked, hedged := counters.AskedBytes.Load(), counters.HedgedBytes.Load()
	f.hedged = float64(hedged) / float64(asked-hedged)
	if len(f.fetched) == 0 {
		return f, errors.New("every read was hedged")
	}
	return f, nil
}

// shardRead reads frames of a stripe, all of whose holders are well, and then those of
// a column that is lost.
func shardRead(ctx context.Context, b *bench, s *sheet) error {
	made, err := b.stripe(ctx, readCode)
	if err != nil {
		return err
	}
	k := readCode.K
	alone := made.within(-1)
	s.note("a series of %d CT of %d × %d (%s MB at rest, %d of its frames cross one of the %d borders between columns and are not among those that are counted) as one pack under %v: a holder each, in this process, with their own stores on disk, ports and certificates, %v away; a reader that has links of that rate to each, and one of it to all. A read is of the segments that hold the frame: verified, decrypted and expanded. %d reads a round, one after the other, from any column, by a reader that has read all of it once before",
		len(made.frames), b.cut.edge, b.cut.edge, number(float64(made.head.Size)/1e6), len(made.frames)-len(alone), k-1, readCode, farAway, b.cut.reads)
	s.note("degraded: nothing of the first site arrives any more; reads of its column, after it was found to be dead. Bytes are those of the links: proofs, HTTP/2 and TLS included. Requests, sites and bytes are means over the reads for which nothing was asked for twice to be sooner, which has a line of its own, of all that the reader asked for until then: who was in time earns what is asked for twice later")
	s.note("row striping (computed): a reader that works as MinIO's does reads 1 MiB blocks of the pack, each cut into k pieces at k sites, whole (cmd/erasure-decode.go), so k sites for any frame; one that asked for no more than the pieces that hold a part of the frame would ask %s sites on average here", number(piecesTouched(made, striped1MiB)))
	for _, r := range rates {
		for round := range b.rounds {
			err := b.sitting(ctx, made, world.Both(farAway, r.rate), r.rate, func(t *sitting) error {
				return b.readRound(ctx, s, t, r.name, r.rate, alone, round)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) readRound(ctx context.Context, s *sheet, t *sitting, name string, rate world.Rate, alone []frame, round int) error {
	healthy, err := t.readAll(ctx, alone, b.cut.reads, rate)
	if err != nil {
		return err
	}
	s.add("healthy "+name, "×", pelago, median(healthy.over))
	b.say("  round %d, %s: healthy p50 %s ms, %s×", round+1, name, number(1e3*median(healthy.seconds)), number(median(healthy.over)))
	if rate != world.Gbps {
		return nil
	}
	s.add("healthy requests", "", pelago, mean(healthy.requests))
	s.add("healthy sites", "", pelago, mean(healthy.sites))
	s.add("healthy hedged", "%", pelago, 100*healthy.hedged)
	s.add("striped sites", "sites", pelago, mean(healthy.sites))
	s.add("striped sites", "sites", rowStriping, float64(t.head.Code.K))
	lost := holderSite(0)
	if err := t.holders.world.Part(world.BlackHole, []world.Site{reader}, []world.Site{lost}); err != nil {
		return err
	}
	column := t.within(0)
	if _, err := t.readAll(ctx, column, detection, rate); err != nil {
		return err
	}
	degraded, err := t.readAll(ctx, column, b.cut.reads, rate)
	if err != nil {
		return err
	}
	s.add("degraded", "×", pelago, median(degraded.seconds)/median(healthy.seconds))
	s.add("degraded bytes", "×", pelago, mean(degraded.fetched)/float64(t.head.Code.K))
	b.say("  round %d: hedged %s %%; degraded p50 %s ms, fetched %s times its segments, healthy %s, hedged %s %%", round+1, number(100*healthy.hedged),
		number(1e3*median(degraded.seconds)), number(mean(degraded.fetched)), number(mean(healthy.fetched)), number(100*degraded.hedged))
	return nil
}

// detection is how many frames are read until it is known who is dead, or slow.
const detection = 12

// shardSeries reads the frames of a series one after the other, from holders that are
// well, and from all but one, with another slow.
func shardSeries(ctx context.Context, b *bench, s *sheet) error {
	made, err := b.stripe(ctx, readCode)
	if err != nil {
		return err
	}
	link := world.Both(farAway, world.Gbps)
	link.Jitter = farAway / 10
	slow := world.Both(10*farAway, world.Gbps/10)
	slow.Jitter = farAway
	s.note("the same series under %v, its frames one after the other, %d a round, over links of %v ± %v and 1 Gb/s; then nothing of the first site arrives any more, and the second is ten times as far, and its link a tenth. After detection: %d frames were read of each of their columns. The hedge delay is the p95 of how soon the slowest holder begins to answer while all are well, measured in the same round; recall itself waits a little longer (`shard/recall`)",
		readCode, b.cut.reads, farAway, link.Jitter, detection)
	for round := range b.rounds {
		err := b.sitting(ctx, made, link, world.Gbps, func(t *sitting) error { return b.seriesRound(ctx, s, t, slow, round) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) seriesRound(ctx context.Context, s *sheet, t *sitting, slow world.Link, round int) error {
	w, dead, far := t.holders.world, holderSite(0), holderSite(1)
	t.watched.hedgeDelay()
	healthy, err := t.readAll(ctx, t.frames, b.cut.reads, world.Gbps)
	if err != nil {
		return err
	}
	delay := t.watched.hedgeDelay()
	if err := errors.Join(w.Part(world.BlackHole, []world.Site{reader}, []world.Site{dead}), w.SetBoth(reader, far, slow)); err != nil {
		return err
	}
	for column := range 2 {
		if _, err := t.readAll(ctx, t.within(column), detection, world.Gbps); err != nil {
			return err
		}
	}
	hurt, err := t.readAll(ctx, t.frames, b.cut.reads, world.Gbps)
	if err != nil {
		return err
	}
	most := percentile(healthy.seconds, 99) + 1.2*delay.Seconds()
	s.add("series p99", "×", pelago, percentile(hurt.seconds, 99)/most)
	s.add("series hedged", "%", pelago, 100*hurt.hedged)
	b.say("  round %d: healthy p50 %s, p99 %s ms; hedge delay %s ms; hurt p50 %s, p99 %s ms", round+1, number(1e3*median(healthy.seconds)),
		number(1e3*percentile(healthy.seconds, 99)), number(1e3*delay.Seconds()), number(1e3*median(hurt.seconds)), number(1e3*percentile(hurt.seconds, 99)))
	return nil
}

// striped1MiB is the block of MinIO's erasure code.
const striped1MiB = 1 << 20

// piecesTouched is at how many sites the bytes of a frame lie on average, if a pack
// is striped by rows: each block is cut into k pieces.
func piecesTouched(s *striped, block int64) float64 {
	k := int64(s.geometry.K)
	piece := (block + k - 1) / k
	sum := 0
	for _, f := range s.frames {
		from := f.first * seal.LeafBytes
		sites := map[int64]bool{}
		for at := from; at < from+f.bytes; {
			in := at % block
			sites[in/piece] = true
			at += min(piece-in%piece, block-in)
		}
		sum += len(sites)
	}
	return float64(sum) / float64(len(s.frames))
}

// mean of a sample that is not empty.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
