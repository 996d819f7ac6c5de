package gossip

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
)

func someMeta() Meta {
	return Meta{
		Site: "St. Mary's", DICOM: "192.0.2.7:11112", Web: "pacs.example:443", Load: 250,
		Free: 1 << 40, Capacity: 3 << 40, AppliedIndex: 123456789, Reads: 4, Held: 5 << 30, Lacking: 4096,
		RTT: map[string]time.Duration{"abcdefgh": 81200 * time.Microsecond, "zzzzzzzz": 400 * time.Microsecond},
	}
}

func TestMetadataIsReadAsItWasWritten(t *testing.T) {
	for name, m := range map[string]Meta{"all": someMeta(), "nothing": {RTT: map[string]time.Duration{}}, "shards unknown": {RTT: map[string]time.Duration{}, Held: -1, Lacking: -1}} {
		if got, err := parseMeta(m.append(nil)); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got, err := parseMeta(append(m.append(nil), "newer"...)); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s with newer fields: %+v, %v", name, got, err)
		}
	}
}

func TestMetadataFindsRoomForTheNearest(t *testing.T) {
	m := someMeta()
	m.Site = strings.Repeat("\U0001F3E5", 64)
	m.DICOM, m.Web = strings.Repeat("d", maxAddress), strings.Repeat("w", maxAddress+1)
	m.Free, m.Capacity, m.AppliedIndex, m.Load = 1<<64-1, 1<<64-1, 1<<64-1, 1<<16-1
	m.Held, m.Lacking = math.MaxInt64-1, math.MaxInt64-1
	m.RTT = map[string]time.Duration{"short": time.Millisecond, "notBase3": time.Millisecond}
	for i := range 100 {
		m.RTT[fmt.Sprintf("node%c%c%c%c", 'a'+i%26, 'a'+i/26, 'a', 'a')] = time.Duration(i+1) * time.Second / 10
	}
	b := m.append([]byte("before"))[len("before"):]
	if len(b) > metaLimit || len(b) <= metaLimit-rttBytes {
		t.Errorf("%d bytes", len(b))
	}
	got, err := parseMeta(b)
	if err != nil || got.Site != m.Site || got.Web != "" || got.Free != m.Free || got.Lacking != m.Lacking || len(got.RTT) < 10 {
		t.Fatalf("%+v, %v", got, err)
	}
	for node, d := range got.RTT {
		if d != m.RTT[node] || d > time.Duration(len(got.RTT))*time.Second/10 {
			t.Errorf("%s at %v is not among the %d nearest", node, d, len(got.RTT))
		}
	}
	far := Meta{RTT: map[string]time.Duration{"abcdefgh": time.Hour}}
	if got, err := parseMeta(far.append(nil)); err != nil || got.RTT["abcdefgh"] != maxRTT {
		t.Errorf("an hour: %v, %v", got.RTT, err)
	}
}

func TestBrokenMetadataIsRefused(t *testing.T) {
	b := someMeta().append(nil)
	earlier := goldenHex(t, "meta_untold.hex")
	for cut := range b {
		if cut == len(earlier) {
			continue // it is whole as an earlier program has it
		}
		if _, err := parseMeta(b[:cut]); !fault.Is(err, fault.Invalid) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if _, err := parseMeta(make([]byte, metaLimit+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
	if _, err := parseMeta([]byte{2}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("newer: %v", err)
	}
}

func TestGoldenMetadata(t *testing.T) {
	want := goldenHex(t, "meta.hex")
	if got := someMeta().append(nil); !bytes.Equal(got, want) {
		t.Errorf("the golden metadata is\n%x, want\n%x", got, want)
	}
	// Programs of before did not tell what they read, nor of shards.
	untold := someMeta()
	untold.Reads, untold.Held, untold.Lacking = 0, -1, -1
	if got, err := parseMeta(goldenHex(t, "meta_untold.hex")); err != nil || !reflect.DeepEqual(got, untold) {
		t.Errorf("metadata of an earlier program: %+v, %v", got, err)
	}
}

func goldenHex(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzMeta(f *testing.F) {
	f.Add(someMeta().append(nil))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 127})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil || len(b) > metaLimit-3 { // what an earlier program did not tell takes room from its round trips
			return
		}
		again, err := parseMeta(m.append(nil))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v reads as %+v, %v", m, again, err)
		}
	})
}
