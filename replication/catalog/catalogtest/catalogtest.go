// Package catalogtest makes synthetic archives for tests and benchmarks: any
// number of studies of people who do not exist, the same ones every time. For tests
// of what the network decides it has a registry whose nodes agree at once.
package catalogtest

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/shard"
)

// Study is a synthetic study of one series.
type Study struct {
	UID, Series        string
	PatientID, Name    string
	Accession          string
	Date, Time         string
	Modality           string
	Description        string
	Referring, StudyID string
	Instances          uint64
}

// Make returns study i of an archive of the given seed: about 2.5 studies a
// patient, over ten years, names as in a European city.
func Make(seed, i uint64) Study {
	r := rand.New(rand.NewPCG(seed, i))
	who := i * 2654435761 % 4_294_967_291 % (1 + i*2/5) // the more studies, the more people
	p := rand.New(rand.NewPCG(seed^0x5EED, who))
	// Studies arrive in about the order of their dates.
	day := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(i/274)%3650-r.IntN(20))
	m := modalities[weighted(r, modalityWeights[:])]
	return Study{
		UID:         fmt.Sprintf("1.2.840.113619.2.%d.%d.%d", 1+r.IntN(40), r.Uint64()>>8, i),
		Series:      fmt.Sprintf("1.2.840.113619.2.%d.%d.%d.1", 1+r.IntN(40), r.Uint64()>>8, i),
		PatientID:   fmt.Sprintf("%08d", 10_000_000+who*7),
		Name:        family(p) + "^" + given(p),
		Accession:   fmt.Sprintf("A%09d", 100_000_000+i*13),
		Date:        day.Format("20060102"),
		Time:        fmt.Sprintf("%02d%02d%02d", 6+r.IntN(16), r.IntN(60), r.IntN(60)),
		Modality:    m,
		Description: m + " " + regions[r.IntN(len(regions))] + protocols[r.IntN(len(protocols))],
		Referring:   families[r.IntN(len(families))] + "^" + givens[r.IntN(10)],
		StudyID:     fmt.Sprint(1 + i),
		Instances:   1 + uint64(r.IntN(400)),
	}
}

// Fact returns what a node would announce of the study's series.
func (s Study) Fact(asOf uint64) *catalog.SeriesFact { return s.FactOf(1, asOf) }

// FactOf is Fact for a study of several series, of the nth, from 1.
func (s Study) FactOf(n int, asOf uint64) *catalog.SeriesFact {
	series, description := s.Series, s.Description
	if n > 1 {
		series, description = fmt.Sprintf("%s%d", strings.TrimSuffix(series, "1"), n), fmt.Sprint(description, n)
	}
	f := &catalog.SeriesFact{
		Origin: "3f9a1c77d0e2b4a6", Site: "north", AsOf: asOf, Study: s.UID, Series: series, Issuer: "NORTH",
		Attributes: Dataset(map[dict.Tag]string{
			dict.PatientName: s.Name, dict.PatientID: s.PatientID, dict.PatientBirthDate: "19" + s.PatientID[3:5] + "0" + "612", dict.PatientSex: "F",
			dict.StudyDate: s.Date, dict.StudyTime: s.Time, dict.AccessionNumber: s.Accession, dict.StudyDescription: s.Description,
			dict.ReferringPhysicianName: s.Referring, dict.StudyID: s.StudyID,
			dict.Modality: s.Modality, dict.SeriesDescription: description, dict.SeriesNumber: fmt.Sprint(n), dict.SeriesDate: s.Date,
			dict.SeriesTime: s.Time, dict.Manufacturer: "SYNTHETIC", dict.InstitutionName: "North Hospital",
			dict.StationName: s.Modality + "01", dict.BodyPartExamined: "CHEST",
		}),
		Instances: s.Instances, Bytes: s.Instances * 526_000, Classes: []string{"1.2.840.10008.5.1.4.1.1.2"},
		Arrived: 1_700_000_000_000_000 + int64(asOf)*1000,
	}
	r := rand.NewPCG(asOf, 1)
	for i := 0; i < 32; i += 8 {
		binary.LittleEndian.PutUint64(f.UIDHash[i:], r.Uint64())
	}
	return f
}

// Sealed returns a key of the study that facts of series (*catalog.SeriesFact) are of,
// and a seal of one pack of each: as a network of nine sites makes them.
func Sealed(facts []any) (key *catalog.KeyFact, seals []any) {
	first := facts[0].(*catalog.SeriesFact)
	r := rand.NewChaCha8(blake3.Sum256([]byte(first.Study)))
	key = &catalog.KeyFact{Origin: first.Origin, Study: first.Study, Epoch: 3}
	_, _ = r.Read(key.ID[:]) // never fails
	_, _ = r.Read(key.Wrapped[:])
	for _, f := range facts {
		f := f.(*catalog.SeriesFact)
		s := &catalog.SealFact{
			By: f.Origin, Study: f.Study, Series: f.Series, Stripe: shard.Stripe{Generation: 1}, Origin: f.Origin, Key: key.ID,
			Size: int64(f.Bytes)/3 + 1<<20, Instances: f.Instances, Code: shard.Code{K: 5, M: 4}, Layout: 40, Receipts: 0x1FF, Virtual: int(r.Uint64() % 9),
		}
		_, _ = r.Read(s.Stripe.Pack[:])
		_, _ = r.Read(s.Root[:])
		seals = append(seals, s)
	}
	return key, seals
}

// Load brings a catalogue of synthetic studies, and of nothing else, to n of
// them, in batches.
func Load(c *catalog.Catalog, seed uint64, n int) error {
	const batch = 1000
	a := Alone(c)
	for from := int(c.Totals().Studies); from < n; from += batch {
		facts := make([]any, 0, batch)
		for i := from; i < min(from+batch, n); i++ {
			facts = append(facts, Make(seed, uint64(i)).Fact(uint64(i+1)))
		}
		results, err := a.Do(facts...)
		if err != nil {
			return fmt.Errorf("load synthetic studies: %w", err)
		}
		for _, r := range results {
			if r != nil {
				return fmt.Errorf("load synthetic studies: %w", r)
			}
		}
	}
	return c.Sync()
}

// Dataset encodes text attributes in explicit little endian and ISO_IR 192.
func Dataset(values map[dict.Tag]string) []byte {
	type element struct {
		tag   dict.Tag
		value string
	}
	elements := []element{{dict.SpecificCharacterSet, "ISO_IR 192"}}
	for t, v := range values {
		elements = append(elements, element{t, v})
	}
	slices.SortFunc(elements, func(a, b element) int { return cmp.Compare(a.tag, b.tag) })
	var b []byte
	for _, e := range elements {
		entry, ok := dict.Lookup(e.tag)
		if !ok || entry.VR.Long() {
			panic("catalogtest: not a short text attribute")
		}
		if len(e.value)%2 != 0 {
			e.value += " "
		}
		b = binary.LittleEndian.AppendUint16(b, e.tag.Group())
		b = binary.LittleEndian.AppendUint16(b, e.tag.Element())
		b = append(b, byte(entry.VR>>8), byte(entry.VR))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e.value)))
		b = append(b, e.value...)
	}
	return b
}

func family(r *rand.Rand) string {
	if r.IntN(4) > 0 { // most people share few names
		return families[r.IntN(len(families))]
	}
	return syllables(r, 2+r.IntN(2))
}

func given(r *rand.Rand) string {
	if r.IntN(10) > 0 {
		return givens[r.IntN(len(givens))]
	}
	return syllables(r, 2)
}

func syllables(r *rand.Rand, n int) string {
	const consonants, vowels = "BDFGHKLMNPRSTVWZ", "AEIOU"
	var b []byte
	for range n {
		b = append(b, consonants[r.IntN(len(consonants))], vowels[r.IntN(len(vowels))])
	}
	return string(append(b, "NRSTLM"[r.IntN(6)]))
}

func weighted(r *rand.Rand, weights []int) int {
	total := 0
	for _, w := range weights {
		total += w
	}
	at := r.IntN(total)
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return 0
}
