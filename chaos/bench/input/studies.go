package input

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Study is what a made-up study of a population says of itself.
type Study struct {
	UID                 string
	PatientID, Name     string // LO; PN
	BirthDate, Sex      string // DA; M or F
	Accession, StudyID  string
	Date, Time          string // DA, TM
	Modality, Class     string
	Description, Referr string
}

// Population is an archive's worth of studies over ten years, about two and a
// half a patient. Populations of different size look alike: a month is the same
// share of each.
type Population struct {
	Seed uint64
	Size int
}

// years is what a population spans; first is its first day.
const years = 10

func first() time.Time { return time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC) }

// root is the stem of the UIDs: derived from a UUID (PS3.5 §B.2).
const root = "2.25.20348713309826653"

// Study returns the ith study, in order of its date.
func (p Population) Study(i int) Study {
	chance := rand.New(rand.NewPCG(p.Seed, uint64(i)))
	who := int(uint64(i) * 2654435761 % uint64(max(p.Size*2/5, 1)))
	person := rand.New(rand.NewPCG(p.Seed^0x5EED, uint64(who)))
	minutes := years * 365 * 24 * 60
	at := first().Add(time.Duration(int64(i)*int64(minutes)/int64(max(p.Size, 1))) * time.Minute)
	kind := kinds[weighted(chance)]
	return Study{
		UID:         fmt.Sprintf("%s.%d.1.%d", root, p.Seed, i),
		PatientID:   fmt.Sprintf("%08d", 10_000_000+who*7),
		Name:        family(person) + "^" + given(person),
		BirthDate:   time.Date(1930+person.IntN(85), time.Month(1+person.IntN(12)), 1+person.IntN(28), 0, 0, 0, 0, time.UTC).Format("20060102"),
		Sex:         []string{"F", "M"}[person.IntN(2)],
		Accession:   fmt.Sprintf("A%09d", 100_000_000+i*13),
		StudyID:     fmt.Sprint(1 + i),
		Date:        at.Format("20060102"),
		Time:        at.Format("150405"),
		Modality:    kind.modality,
		Class:       kind.class,
		Description: kind.modality + " " + regions[chance.IntN(len(regions))],
		Referr:      families[chance.IntN(len(families))] + "^" + givens[chance.IntN(8)],
	}
}

// SeriesUID and InstanceUID name the study's nth series and its mth instance,
// both from 1.
func (s Study) SeriesUID(n int) string { return fmt.Sprintf("%s.2.%d", s.UID, n) }

// InstanceUID is as SeriesUID.
func (s Study) InstanceUID(n, m int) string { return fmt.Sprintf("%s.3.%d.%d", s.UID, n, m) }

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

func weighted(r *rand.Rand) int {
	at := r.IntN(100)
	for i, k := range kinds {
		if at -= k.percent; at < 0 {
			return i
		}
	}
	return 0
}

// Classes lists the storage classes that studies may have.
func Classes() []string {
	var all []string
	for _, k := range kinds {
		if !slices.Contains(all, k.class) {
			all = append(all, k.class)
		}
	}
	return all
}
