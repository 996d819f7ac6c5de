package spread

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

// do has the network take changes of others.
func (w *world) do(changes ...any) {
	w.t.Helper()
	results, err := w.solo.Do(changes...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// foreign is what another node says of a stripe of a pack of this node's, and the key
// that it needs.
func (w *world) foreign(n int, code shard.Code, changes ...func(*catalog.SealFact)) (*catalog.KeyFact, *catalog.SealFact) {
	w.t.Helper()
	o := makePack(w.t, n, large)
	k, err := w.ring.Wrapped(keyOf(studyOf(n)))
	if err != nil {
		w.t.Fatal(err)
	}
	f := &catalog.SealFact{
		By: "n01", Study: o.record.Study, Series: o.record.Series, Stripe: shard.Stripe{Pack: idOf(n), Generation: 1}, Origin: self,
		Key: k.ID, Size: o.record.BlobBytes, Instances: uint64(o.record.Instances), Code: code, Root: [32]byte{1}, Layout: 1, Virtual: catalog.NoShard,
	}
	for _, change := range changes {
		change(f)
	}
	return &catalog.KeyFact{Origin: self, Study: k.Study, ID: k.ID, Epoch: k.Epoch, Wrapped: k.Wrapped}, f
}

func TestAStripeOfAnotherRootIsFollowedByTheNextGeneration(t *testing.T) {
	for _, when := range []string{"before it is encoded", "after it was told"} {
		inWorld(t, 3, func(t *testing.T, w *world) {
			key, f := w.foreign(1, shard.Code{K: 1, M: 2})
			w.do(key)
			if when == "before it is encoded" {
				w.do(f)
			}
			w.mute(when != "before it is encoded")
			w.start()
			w.pack(1, large)
			if when != "before it is encoded" {
				w.until("written", func() bool { return len(w.rows.keys(rowStripe)) > 0 })
				w.do(f)
				w.mute(false)
			}
			got := w.settled(idOf(1), shard.Code{K: 1, M: 2})
			if got.Stripe.Generation != 2 || got.Withdrawn != 1 || got.By != self {
				t.Errorf("%s: %+v", when, got.SealFact)
			}
		})
	}
}

func TestWhatAnotherNodeHasToldIsWhereThisOneGoesOn(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.stores["n01"].fail(errDown)
		w.pack(1, large)
		w.until("sealed", func() bool { return len(w.seals(idOf(1))) == 1 })
		first := w.check(idOf(1))
		at := slices.Index(w.rowOf(idOf(1)), "n02")
		// A repair has found shard at to be lost, and told so.
		next := first.SealFact
		next.By, next.Base, next.Revision = "n02", first.Revision, first.Revision+7
		next.Receipts &^= 1 << at
		w.do(&next)
		w.stores["n01"].fail(nil)
		w.until("told on", func() bool { s := w.seals(idOf(1)); return s[0].By == self && s[0].Revision > next.Revision })
		f := w.settled(idOf(1), shard.Code{K: 1, M: 2}) // n02 has it, when it is asked
		if f.Root != first.Root || f.Stripe.Generation != 1 {
			t.Errorf("%+v", f.SealFact)
		}
		w.consistent()
	})
}

func TestRowsThatAreLostComeBackFromTheCatalogueAndTheHolders(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		w.pack(2, 50_000)
		a := w.settled(idOf(1), shard.Code{K: 2, M: 2})
		b := w.settled(idOf(2), shard.Code{K: 1, M: 2})
		w.stop()
		uploads := map[string]int{}
		for node, h := range w.stores {
			uploads[node] = h.uploads
		}
		w.rows.clear(t)
		w.start()
		w.until("surveyed", func() bool { packs, _ := w.Waiting(); return packs == 0 && len(w.rows.keys(rowStripe)) == 2 })
		for _, was := range []catalog.Seal{a, b} {
			if f := w.check(was.Stripe.Pack); f.Stripe != was.Stripe || f.Root != was.Root || f.Receipts != was.Receipts {
				t.Errorf("%+v", f.SealFact)
			}
		}
		for node, h := range w.stores {
			if h.uploads != uploads[node] {
				t.Errorf("%s was sent something", node)
			}
		}
	})
}

func TestASealWhoseKeyIsNotKnownIsToldBehindIt(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.skip(1) // the key, which the network has forgotten
		w.start()
		w.pack(1, large)
		w.settled(idOf(1), shard.Code{K: 1, M: 1})
		w.consistent()
	})
}

func TestANameThatAHolderKnowsOtherwiseIsGivenUp(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		// Another life of this node has sent a shard of another root under the name.
		other := makePack(t, 1, large)
		head := stripe.Head{Stripe: shard.Stripe{Pack: idOf(1), Generation: 1}, Code: shard.Code{K: 1, M: 1}, Size: other.record.BlobBytes,
			Plaintext: other.record.Plaintext, Manifest: other.record.Manifest, Origin: "another"}
		at := 1 - slices.Index(w.rowOf(idOf(1)), self)
		done, shards := stripetest.Encode(t, stripe.NewCoder(), bytes.NewReader(other.bytes), head)
		claim := held.Claim{Entry: held.Entry{Name: held.Name{Stripe: head.Stripe, Index: at}, Root: done.Root()}, Bytes: int64(len(shards[at]))}
		if _, err := w.stores["n01"].Land(t.Context(), []held.Claim{claim}, bytes.NewReader(shards[at])); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.pack(1, large)
		if f := w.settled(idOf(1), shard.Code{K: 1, M: 1}); f.Stripe.Generation != 2 {
			t.Errorf("%+v", f.SealFact)
		}
	})
}

func TestTellIsDurableAndInOrder(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		key, f := w.foreign(1, shard.Code{K: 1, M: 2})
		key.Origin, f.Origin = "n02", "n02"
		w.do(key, f)
		news := *f
		news.By, news.Base, news.Revision, news.Receipts = self, 0, 1, 0b110
		w.mute(true)
		if err := w.Tell(&news); err != nil {
			t.Fatal(err)
		}
		w.restart()
		synctest.Wait() // the survey of the start would forget what the network knows by then
		w.mute(false)
		w.until("told", func() bool { s := w.seals(idOf(1)); return len(s) == 1 && s[0].Receipts == 0b110 })
		for _, test := range []struct {
			what string
			kind fault.Kind
			set  func(*catalog.SealFact)
		}{
			{"an older revision", fault.Conflict, func(f *catalog.SealFact) { f.Receipts = 1 }},
			{"another root", fault.Conflict, func(f *catalog.SealFact) { f.Revision, f.Root[0] = 9, 9 }},
			{"another code", fault.Conflict, func(f *catalog.SealFact) { f.Revision, f.Code = 9, shard.Code{K: 2, M: 1} }},
			{"by another", fault.Invalid, func(f *catalog.SealFact) { f.By = "n01" }},
			{"of no generation", fault.Invalid, func(f *catalog.SealFact) { f.Stripe.Generation = 0 }},
			{"receipts for what there is not", fault.Invalid, func(f *catalog.SealFact) { f.Receipts = 0b1000 }},
		} {
			bad := news
			test.set(&bad)
			if err := w.Tell(&bad); !fault.Is(err, test.kind) {
				t.Errorf("%s: %v", test.what, err)
			}
		}
		if err := w.Tell(&news); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if _, err := w.Head(f.Stripe); !fault.Is(err, fault.NotFound) {
			t.Errorf("a head of another node's stripe: %v", err)
		}
		// What the network refuses of others' stripes is forgotten: who told it looks.
		later := news
		later.Revision = 2
		w.do(func() *catalog.SealFact {
			f := news
			f.By, f.Base, f.Revision, f.Receipts = "n01", 1, 5, 0b111
			return &f
		}())
		if err := w.Tell(&later); err != nil {
			t.Fatal(err)
		}
		later.Receipts = 0b010
		later.Revision = 3
		if err := w.Tell(&later); err != nil {
			t.Fatal(err)
		}
		w.until("refused", func() bool { return len(w.rows.keys(rowStripe)) == 0 })
		if s := w.seals(idOf(1)); s[0].Receipts != 0b111 {
			t.Errorf("%+v", s[0].SealFact)
		}
		w.consistent()
	})
}

// A part of this node that tells news of one of its own stripes is not undone by a
// round that ends later.
func TestNewsOfAnOwnStripeAreTakenIn(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		f := w.settled(idOf(1), shard.Code{K: 2, M: 2})
		i := slices.IndexFunc(w.rowOf(idOf(1)), func(n string) bool { return n != self })
		moved := f.SealFact
		moved.Base, moved.Revision = f.Revision, f.Revision+1
		moved.Receipts &^= 1 << i
		if err := w.Tell(&moved); err != nil {
			t.Fatal(err)
		}
		w.until("told", func() bool { return w.seals(idOf(1))[0].Receipts == moved.Receipts })
		w.Hurry(idOf(1)) // it lacks a shard, which its holder has
		again := w.settled(idOf(1), shard.Code{K: 2, M: 2})
		if again.Revision <= moved.Revision {
			t.Errorf("%+v", again.SealFact)
		}
	})
}

// Five series of a study cost what the log is said to take for one.
func TestAStudyTakesLittleOfTheLog(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.start()
		w.stores["n01"].set(func(h *holder) { h.slow = 15 * time.Second })
		before, bytes := w.catalog.Entries()
		for n := range 5 {
			w.pack(n, large)
		}
		for n := range 5 {
			w.settled(idOf(n), shard.Code{K: 2, M: 2})
		}
		after, now := w.catalog.Entries()
		t.Logf("%d bytes in %d entries", now-bytes, after-before)
		if w.facts > 11 {
			t.Errorf("%d facts: a key, five seals, at most as many news", w.facts)
		}
	})
}

var _ Holders = (*held.Client)(nil)

func TestWhatIsPurgedIsNotToldAgain(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		w.pack(2, 9000)
		f := w.settled(idOf(1), shard.Code{K: 1, M: 1})
		w.settled(idOf(2), shard.Code{K: 1, M: 1})
		w.packs.mu.Lock()
		delete(w.packs.all, idOf(1))
		w.packs.mu.Unlock()
		if err := w.Purged(idOf(1), idOf(9)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Head(f.Stripe); !fault.Is(err, fault.NotFound) {
			t.Errorf("its head: %v", err)
		}
		w.Hurry(idOf(1))
		w.until("left", func() bool { packs, _ := w.Waiting(); return packs == 0 })
		if facts := len(w.rows.keys(rowFact)); facts != 2 {
			t.Errorf("%d facts are left of a key and a pack", facts)
		}
		w.consistent()
	})
}

// A node that says of another's stripe what it said before another node told otherwise
// says something new.
func TestWhatIsSaidAgainOfALaterRevisionIsTold(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		key, f := w.foreign(1, shard.Code{K: 1, M: 2})
		key.Origin, f.Origin = "n02", "n02"
		w.do(key, f)
		for revision, by := range []string{1: self, 2: "n01", 3: self} {
			if revision == 0 {
				continue
			}
			next := *f
			next.By, next.Base, next.Revision, next.Receipts = by, uint64(revision-1), uint64(revision), 0b110
			if by != self {
				next.Receipts = 0b111
				w.do(&next)
				continue
			}
			if err := w.Tell(&next); err != nil {
				t.Fatal(err)
			}
			w.until("told", func() bool { return w.seals(idOf(1))[0].Revision == uint64(revision) })
			if got := w.seals(idOf(1))[0].Receipts; got != 0b110 {
				t.Errorf("revision %d has receipts %b", revision, got)
			}
		}
		w.consistent()
	})
}

// What was refused, for another node told first, is in nobody's way: the next news
// goes on from what is committed.
func TestARefusedRevisionIsNotWaitedFor(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		f := w.settled(idOf(1), shard.Code{K: 1, M: 2}).SealFact
		if f.Virtual == catalog.NoShard {
			t.Fatal("no shard is cut from the copy")
		}
		w.mute(true)
		mine, other := f, f
		mine.Base, mine.Revision, mine.Receipts = f.Revision, f.Revision+2, f.Receipts&^(1<<f.Virtual)
		if err := w.Tell(&mine); err != nil {
			t.Fatal(err)
		}
		other.By, other.Base, other.Revision, other.Virtual = "n02", f.Revision, f.Revision+1, catalog.NoShard
		w.do(&other)
		w.mute(false)
		w.until("refused, and settled", func() bool {
			r, err := w.ledger.stripe(f.Stripe)
			return err == nil && r.seal.Base == other.Revision && r.seal.Virtual == catalog.NoShard
		})
		next := other
		next.By, next.Base, next.Revision, next.Virtual = self, other.Revision, other.Revision+1, f.Virtual
		if err := w.Tell(&next); err != nil {
			t.Fatal(err)
		}
		w.until("told", func() bool { return w.seals(idOf(1))[0].By == self })
		w.consistent()
	})
}

// News of a pack that is purged before they are told are refused once, and not told again.
func TestWhatIsPurgedMeanwhileIsToldNoMore(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		f := w.settled(idOf(1), shard.Code{K: 1, M: 1})
		w.mute(true)
		news := f.SealFact
		news.Base, news.Revision, news.Receipts, news.By = f.Revision, f.Revision+1, f.Receipts&^1, self
		if err := w.Tell(&news); err != nil {
			t.Fatal(err)
		}
		w.purge(f.Study, idOf(1))
		w.packs.mu.Lock()
		delete(w.packs.all, idOf(1))
		w.packs.mu.Unlock()
		w.mute(false)
		w.until("forgotten", func() bool { return len(w.rows.keys(rowStripe)) == 0 })
		before := w.catalog.Applied()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if now := w.catalog.Applied(); now != before {
			t.Errorf("%d entries about a pack that was purged", now-before)
		}
		w.consistent()
	})
}

// purge has the network give up a pack of a study that it deletes.
func (w *world) purge(study string, id [16]byte) {
	w.t.Helper()
	w.do(alone.Member(self, "s00"), &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: time.Hour, Away: time.Hour}.Encode()})
	w.do(&catalog.TickFact{To: 1}, &catalog.TombstoneFact{Study: study, Tick: 1}, &catalog.TickFact{From: 1, To: 7201})
	w.do(&catalog.RegistryFact{Kind: catalog.KindRevoked, Name: self, Value: []byte("x")})
	w.do(&catalog.PurgeFact{Pack: id, Study: true})
}

// What the network refuses for ever is not told without end.
func TestWhatIsRefusedForEverIsToldSeldom(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.start()
		key, _ := w.foreign(1, shard.Code{K: 1, M: 1})
		key.Origin = "n01" // the key's name is another node's
		w.do(key)
		w.pack(1, large)
		time.Sleep(time.Hour)
		w.ledger.telling.Lock()
		defer w.ledger.telling.Unlock()
		if w.ledger.last < 2 || w.ledger.last > 20 {
			t.Errorf("%d numbers were given in an hour", w.ledger.last)
		}
	})
}

// A stripe of this node's that another part of it has told of before it was encoded
// here again, as after store/ came from a backup, has its head, from which its shard is
// cut.
func TestAStripeThatWasToldOfBeforeItWasEncodedGetsItsHead(t *testing.T) {
	for _, when := range []string{"before the news is committed", "after it is"} {
		inWorld(t, 3, func(t *testing.T, w *world) {
			w.start()
			w.pack(1, large)
			f := w.settled(idOf(1), shard.Code{K: 1, M: 2})
			w.stop()
			w.rows.clear(t)
			o := w.packs.all[idOf(1)]
			w.packs.mu.Lock()
			delete(w.packs.all, idOf(1)) // the survey of the start comes too soon
			w.packs.mu.Unlock()
			w.start()
			w.mute(when != "after it is")
			news := f.SealFact
			i := slices.IndexFunc(w.rowOf(idOf(1)), func(n string) bool { return n != self })
			news.By, news.Base, news.Revision, news.Receipts = self, f.Revision, f.Revision+1, f.Receipts&^(1<<i)
			if err := w.Tell(&news); err != nil {
				t.Fatal(err)
			}
			if when == "after it is" {
				w.until("told", func() bool { return w.seals(idOf(1))[0].Revision == news.Revision })
			}
			w.packs.put(o)
			w.Packed([]pack.ID{idOf(1)})
			w.until("the head is here", func() bool { _, err := w.Head(f.Stripe); return err == nil })
			w.mute(false)
			w.until("told on", func() bool { return w.seals(idOf(1))[0].Revision > f.Revision })
			if got := w.settled(idOf(1), shard.Code{K: 1, M: 2}); got.Stripe != f.Stripe || got.Code != f.Code {
				t.Errorf("%s: %+v", when, got.SealFact)
			}
			w.consistent()
		})
	}
}

// Rows of other nodes' stripes are there until the network has what they say.
func TestWhatWasToldOfOthersIsForgotten(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.pack(40, 9000)
		w.settled(idOf(40), shard.Code{K: 1, M: 2})
		key, f := w.foreign(1, shard.Code{K: 1, M: 2})
		key.Origin, f.Origin = "n02", "n02"
		w.do(key)
		for n := range surveySlice + 44 {
			f.Stripe.Pack = idOf(n + 1000)
			w.do(f)
			news := *f
			news.By, news.Revision, news.Receipts = self, 1, 0b110
			if n == 0 { // it was refused, and nobody heard of it
				w.mute(true)
			}
			if err := w.Tell(&news); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				w.ledger.telling.Lock()
				w.skip(w.ledger.last)
				w.ledger.telling.Unlock()
				time.Sleep(time.Second)
				synctest.Wait()
				w.mute(false)
			}
		}
		w.until("told", func() bool { return w.seals(idOf(surveySlice + 1043))[0].Revision == 1 })
		w.look <- struct{}{}
		w.until("forgotten", func() bool { return len(w.rows.keys(rowStripe)) == 2 })
		time.Sleep(settleWithin)
		w.look <- struct{}{}
		w.until("told again", func() bool { return w.seals(idOf(1000))[0].Revision == 1 })
		w.look <- struct{}{}
		w.until("forgotten", func() bool { return len(w.rows.keys(rowStripe)) == 1 })
		if stripes, facts := len(w.rows.keys(rowStripe)), len(w.rows.keys(rowFact)); stripes != 1 || facts != 2 {
			t.Errorf("%d rows of stripes, %d facts of one pack of this node and its key", stripes, facts)
		}
		w.consistent()
	})
}
