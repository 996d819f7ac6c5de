package gossip

import (
	"encoding/hex"
	"fmt"
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
		Free: 1 << 40, Capacity: 3 << 40, AppliedIndex: 123456789,
		RTT:   map[string]time.Duration{"abcdefgh": 81200 * time.Microsecond, "zzzzzzzz": 400 * time.Microsecond},
		Reads: 4,
	}
}

func TestMetadataIsReadAsItWasWritten(t *testing.T) {
	for name, m := range map[string]Meta{"all": someMeta(), "nothing": {RTT: map[string]time.Duration{}}} {
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
	m.RTT = map[string]time.Duration{"short": time.Millisecond, "notBase3": time.Millisecond}
	for i := range 100 {
		m.RTT[fmt.Sprintf("node%c%c%c%c", 'a'+i%26, 'a'+i/26, 'a', 'a')] = time.Duration(i+1) * time.Second / 10
	}
	b := m.append([]byte("before"))[len("before"):]
	if len(b) > metaLimit || len(b) <= metaLimit-rttBytes {
		t.Errorf("%d bytes", len(b))
	}
	got, err := parseMeta(b)
	if err != nil || got.Site != m.Site || got.Web != "" || got.Free != m.Free || len(got.RTT) < 10 {
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
	for cut := range len(b) - 1 { // without the last it is that of an older program
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
	want, err := os.ReadFile(filepath.Join("testdata", "meta.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(someMeta().append(nil)); got != strings.TrimSpace(string(want)) {
		t.Errorf("the golden metadata is\n%s, want\n%s", got, want)
	}
}

// A program of before that does not say what it reads, and it does not pass for one that does.
func TestMetadataOfAnOlderProgramSaysNotWhatItReads(t *testing.T) {
	old, err := os.ReadFile(filepath.Join("testdata", "meta-before-reads.hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(old)))
	if err != nil {
		t.Fatal(err)
	}
	want := someMeta()
	want.Reads = 0
	for name, more := range map[string]string{"as it is": "", "and no number": "\xff", "and too large a number": "\xff\xff\xff\xff\x7f"} {
		if got, err := parseMeta(append(b[:len(b):len(b)], more...)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(someMeta().append(nil))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 127})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		again, err := parseMeta(m.append(nil))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v reads as %+v, %v", m, again, err)
		}
	})
}
