package reach

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// Several readers at each of several sites, through any face, whole or frame by
// frame, have each site fetch each byte about once, and the origin send it once a
// site at most.
func TestReadersAtOnceFetchOnceASite(t *testing.T) {
	const readers, count = 2, 40
	series := func(all []dimsetest.Instance) scu.Query { return seriesOf(uids(all)) }
	for _, test := range []struct {
		name string
		read func(t *testing.T, f *faces, all []dimsetest.Instance, reader int) error
	}{
		{"C-GET", func(t *testing.T, f *faces, all []dimsetest.Instance, _ int) error {
			client := f.dial(t, scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: dimsetest.CTImageStorage, Syntax: dict.ExplicitLittleEndian}}))
			v := &viewer{first: func() {}, got: map[string][]byte{}}
			for _, err := range client.Get(t.Context(), series(all), func(_ context.Context, in *scu.Incoming) error { return v.take(in.Instance, in.Data) }) {
				if err != nil {
					return err
				}
			}
			return whole(v, all)
		}},
		{"C-MOVE", func(t *testing.T, f *faces, all []dimsetest.Instance, _ int) error {
			client := f.dial(t, scu.ProposeMove(dimse.StudyRoot))
			for p, err := range client.Move(t.Context(), "VIEWER", series(all)) {
				if err != nil || p.Failed > 0 {
					return fmt.Errorf("%+v: %w", p, err)
				}
			}
			return whole(f.viewer, all)
		}},
		{"frame by frame", func(_ *testing.T, f *faces, all []dimsetest.Instance, reader int) error {
			for i := range all {
				in := all[(i+reader*count/readers)%len(all)] // each in its own order
				r := httptest.NewRequest(http.MethodGet, "/dicom-web/studies/"+path(in)+"/frames/1", nil)
				r.Header.Set("Accept", acceptFrames)
				w := httptest.NewRecorder()
				f.web.ServeHTTP(w, r)
				data := in.Dataset()
				if w.Code != http.StatusOK || !bytes.Contains(w.Body.Bytes(), data[len(data)-2*in.Rows*in.Columns:]) {
					return fmt.Errorf("frame of %s: %d", in.SOPInstanceUID, w.Code)
				}
			}
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t, "o", "a", "b", "c", "d")
			all := images(1, 0, count)
			study, name := uids(all)
			o := n.sites["o"]
			o.store(all...)
			o.pack()
			sites := []string{"a", "b", "c", "d"}
			o.announce(study, name, sites...)
			var work sync.WaitGroup
			for _, node := range sites {
				f := n.sites[node].faces()
				for reader := range readers {
					work.Go(func() {
						if err := test.read(t, f, all, reader); err != nil {
							t.Errorf("%s: %v", node, err)
						}
					})
				}
			}
			work.Wait()
			k := n.sites["a"].reader.recall(seriesAt{study, name, "o"})
			var packs int64
			for i := range k.Packs {
				packs += k.Packs[i].Bytes
			}
			var sent int64
			for _, node := range sites {
				got := int64(0)
				for _, from := range append(sites, "o") {
					got += n.sent(from, node).Load()
				}
				if got > packs*5/4 { // manifests, and what came with them
					t.Errorf("%s got %d bytes of packs of %d", node, got, packs)
				}
				sent += n.sent("o", node).Load()
			}
			if sent > packs*int64(len(sites))*5/4 || sent < packs {
				t.Errorf("the origin sent %d bytes of packs of %d to %d sites", sent, packs, len(sites))
			}
			if asked := n.asked.Load(); asked > int64(len(sites)) {
				t.Errorf("%d manifests were asked for by %d sites", asked, len(sites))
			}
		})
	}
}

// whole reports what an AE did not get as it was stored.
func whole(v *viewer, all []dimsetest.Instance) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, in := range all {
		if !bytes.Equal(v.got[in.SOPInstanceUID], in.Dataset()) {
			return fmt.Errorf("%s: %w", in.SOPInstanceUID, io.ErrUnexpectedEOF)
		}
	}
	return nil
}
