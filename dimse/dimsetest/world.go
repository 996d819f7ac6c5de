package dimsetest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// World is a made-up archive: patients with studies with series with
// instances. The same world gives the same instances, whatever else is asked of it.
type World struct {
	Seed              uint64
	Patients          int
	StudiesPerPatient int      // 0: 1
	SeriesPerStudy    int      // 0: 1
	PerSeries         int      // instances; 0: 1
	Rows, Columns     int      // 0: 8 × 8, the 64-pixel instance
	Syntaxes          []string // taken in turn by study; none: explicit little endian
}

// modalities with their storage classes, taken by chance.
var modalities = []struct{ name, class, study string }{
	{"CT", CTImageStorage, "CT Abdomen"}, {"MR", MRImageStorage, "MR Brain"},
	{"CR", CRImageStorage, "Chest PA"}, {"OT", SecondaryCapture, "Scanned film"},
}

// All yields every instance, patient by patient.
func (w World) All() iter.Seq[Instance] {
	return func(yield func(Instance) bool) {
		for p := range w.Patients {
			for s := range max(w.StudiesPerPatient, 1) {
				for i := range w.Study(p, s) {
					if !yield(i) {
						return
					}
				}
			}
		}
	}
}

// Study yields the instances of the sth study of the pth patient, both from 0.
func (w World) Study(p, s int) iter.Seq[Instance] {
	series, per := max(w.SeriesPerStudy, 1), max(w.PerSeries, 1)
	number := p*max(w.StudiesPerPatient, 1) + s
	base := w.patient(p)
	chance := rand.New(rand.NewPCG(w.Seed, uint64(number)<<1|1))
	m := modalities[chance.IntN(len(modalities))]
	day := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(chance.IntN(16*365*24*3600)) * time.Second)
	base.SOPClassUID, base.Modality, base.StudyDescription = m.class, m.name, m.study
	base.StudyDate, base.StudyTime = day.Format("20060102"), day.Format("150405")
	base.StudyInstanceUID = uid(w.Seed, 1, number)
	base.AccessionNumber, base.StudyID = fmt.Sprintf("A%09d", number), fmt.Sprint(number)
	base.Rows, base.Columns = w.Rows, w.Columns
	if w.Rows == 0 || w.Columns == 0 {
		base.Rows, base.Columns = 8, 8
	}
	if len(w.Syntaxes) > 0 {
		base.Syntax = w.Syntaxes[number%len(w.Syntaxes)]
	}
	return func(yield func(Instance) bool) {
		for e := range series {
			i := base
			i.SeriesInstanceUID = uid(w.Seed, 2, number*series+e)
			i.SeriesNumber, i.SeriesDescription = e+1, fmt.Sprintf("Series %d", e+1)
			for n := range per {
				at := (number*series+e)*per + n
				i.SOPInstanceUID, i.InstanceNumber = uid(w.Seed, 3, at), n+1
				i.Seed = w.Seed<<32 + uint64(at)
				if !yield(i) {
					return
				}
			}
		}
	}
}

// patient returns the attributes of the pth patient.
func (w World) patient(p int) Instance {
	chance := rand.New(rand.NewPCG(w.Seed, uint64(p)<<1))
	born := time.Date(1930, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, chance.IntN(80*365))
	return Instance{
		PatientID: fmt.Sprintf("W%d-%07d", w.Seed, p), PatientName: Names[p%len(Names)],
		BirthDate: born.Format("20060102"), Sex: []string{"M", "F", "O"}[chance.IntN(3)],
	}
}
