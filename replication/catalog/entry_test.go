package catalog

import (
	"bytes"
	"testing"

	"pelago/cluster/fault"
	"pelago/shard"
)

type noSigner struct{}

func (noSigner) Sign([]byte) []byte { return make([]byte, 64) }

// What was read can be written again, and reads the same then.
func FuzzDecodeEntry(f *testing.F) {
	as := attrs{{codePatientName, []byte("DOE^JANE")}, {codePatientID, []byte("P1")}}
	like := attrs{{codePatientID, []byte("P1")}, {codeModality, []byte("CT")}}
	b := Batch{Node: "n", Site: "s", Incarnation: 1, Number: 2, Facts: []*SeriesFact{
		{Origin: "n", Site: "s", AsOf: 3, Study: "1.2", Series: "1.2.3", Issuer: "I", parsed: as, isParsed: true, Instances: 1, Classes: []string{"1.9"}},
		{Origin: "n", Site: "s", AsOf: 3, Study: "1.2", Series: "1.2.31", Issuer: "I", parsed: like, isParsed: true, Instances: 1, Classes: []string{"1.9"}, Arrived: 9},
		{Origin: "n", Site: "s", AsOf: 4, Study: "1.3", Series: "1.4", parsed: like, isParsed: true, leans: &lean{hash: [leanBytes]byte{1}, dropped: []byte{0}}},
		{Origin: "n", Site: "s", AsOf: 5, Study: "1.3", Series: "1.5", parsed: as, isParsed: true, support: &saying{attrs: like, classes: []string{"1.8"}}, Classes: []string{"1.9"}},
	}}
	entry, _, err := EncodeBatch(noSigner{}, b, [32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	b.Keys = []*KeyFact{{Origin: "n", Study: "1.3", ID: [16]byte{1}, Epoch: 2}, {Origin: "n", Study: "1.2", ID: [16]byte{2}, Epoch: 1}, {Origin: "n", Study: "1.9", ID: [16]byte{3}, Epoch: 1}}
	of := func(study, series string, key byte, news bool) *SealFact {
		s := &SealFact{By: "n", Study: study, Series: series, Stripe: shard.Stripe{Pack: [16]byte{9, key}, Generation: 2}, Revision: 3, Layout: 4, Receipts: 5, Virtual: NoShard, news: news}
		if !news {
			s.Origin, s.Key, s.Code, s.Size, s.Root, s.Instances = "m", [16]byte{key}, shard.Code{K: 2, M: 3}, 99_000, [32]byte{8}, 7
			s.Virtual, s.Elsewhere, s.Withdrawn, s.Survives = 1, []Elsewhere{{2, "o"}}, 1, 3
		}
		return s
	}
	b.Seals = []*SealFact{of("1.3", "1.3.1", 1, false), of("1.3", "1.3.1", 1, false), of("1.2", "1.2.3", 5, false), of("1.3", "1.3.1", 6, true), of("1.3", "1.3.2", 6, false)}
	if entry, _, err = EncodeBatch(noSigner{}, b, [32]byte{7}); err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	if entry, err = EncodeDecision(noSigner{}, "n", []Condition{If("k", "n", []byte{1})}, []Command{&RegistryFact{Kind: "k", Name: "n", Value: []byte{1}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	f.Add([]byte{0x08, 2, 0x10, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Errorf("kind of %v", err)
			}
			return
		}
		if e.Batch == nil {
			return
		}
		var previous [32]byte
		copy(previous[:], e.after)
		first, _, err := EncodeBatch(noSigner{}, *e.Batch, previous)
		if err != nil {
			if !fault.Is(err, fault.Full) {
				t.Errorf("a batch that was read cannot be written: %v", err)
			}
			return
		}
		if e, err = DecodeEntry(first); err != nil {
			t.Fatalf("a batch that was written cannot be read: %v", err)
		}
		second, _, err := EncodeBatch(noSigner{}, *e.Batch, previous)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("a batch reads differently after it was written again: %v", err)
		}
	})
}
