package group

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func someEntries() []*raft.Log {
	return []*raft.Log{
		{Index: 300, Term: 1<<32 | 7, Type: raft.LogCommand, Data: []byte("a batch"), AppendedAt: time.Unix(1_700_000_000, 5)},
		{Index: 301, Term: 1<<32 | 8, Type: raft.LogNoop},
		{Index: 302, Term: 1<<32 | 8, Type: raft.LogConfiguration, Data: []byte{1, 2, 3}, Extensions: []byte{4}},
	}
}

func TestEntriesBetweenNodesAreOfTheirFormat(t *testing.T) {
	var b []byte
	for _, l := range someEntries() {
		b = appendEntry(b, l)
	}
	const golden = "testdata/entries.hex"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(hex.EncodeToString(b)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, want %x, %v", b, want, err)
	}
	got, err := readEntries(want, 300, 310)
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	for i, l := range someEntries() {
		if len(l.Data) == 0 {
			l.Data = []byte{}
		}
		if !reflect.DeepEqual(got[i], l) {
			t.Errorf("%+v, want %+v", got[i], l)
		}
	}
	for name, bad := range map[string]struct {
		b           []byte
		first, last uint64
	}{
		"nothing":                  {nil, 300, 310},
		"half an entry":            {want[:len(want)-1], 300, 310},
		"half a header":            {want[:20], 300, 310},
		"others than asked for":    {want, 299, 310},
		"more than were asked for": {want, 300, 301},
	} {
		if _, err := readEntries(bad.b, bad.first, bad.last); !fault.Is(err, fault.Protocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARefusalThatIsCutIsReadAsOne(t *testing.T) {
	for size := maxReason - 4; size < maxReason+8; size++ {
		text := strings.Repeat("x", size%4) + strings.Repeat("北", size/3)
		b, err := json.Marshal(proposed{Index: 1, Refused: refusalOf(fault.New(fault.Denied, "%s", text))})
		if err != nil {
			t.Fatal(err)
		}
		var p proposed
		if err := json.Unmarshal(b, &p); err != nil || p.check() != nil || fault.Kind(p.Refused.Kind) != fault.Denied {
			t.Errorf("%d bytes: %v, %v", len(text), err, p.check())
		}
	}
}

func FuzzEntries(f *testing.F) {
	var b []byte
	for _, l := range someEntries() {
		b = appendEntry(b, l)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		logs, err := readEntries(b, 300, 310)
		if err != nil {
			return
		}
		var again []byte
		for i, l := range logs {
			if l.Index != 300+uint64(i) {
				t.Errorf("entry %d at %d", l.Index, i)
			}
			again = appendEntry(again, l)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x comes back as %x", b, again)
		}
	})
}

func FuzzManifest(f *testing.F) {
	hash := hex.EncodeToString(make([]byte, 32))
	good, err := json.Marshal(manifest{ID: "1", Index: 9, Hash: hash, Files: []file{{"000001.sst", 7, hash}, {"MANIFEST-000002", 0, hash}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, name := range []string{"../x", "a/b", "..", ".", ""} {
		b, err := json.Marshal(manifest{ID: "1", Hash: hash, Files: []file{{name, 7, hash}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m manifest
		if json.Unmarshal(b, &m) != nil || m.check() != nil {
			return
		}
		for _, f := range m.Files {
			if bytes.ContainsAny([]byte(f.Name), "/\x00") || f.Name == "." || f.Name == ".." || f.Name == "" || f.Size < 0 || len(f.BLAKE3) != 64 {
				t.Errorf("%q is taken for a file's name", f.Name)
			}
		}
	})
}

func TestAManifestThatLeadsElsewhereIsRefused(t *testing.T) {
	hash := hex.EncodeToString(make([]byte, 32))
	ok := manifest{Hash: hash, Files: []file{{"a", 1, hash}}}
	if err := ok.check(); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]manifest{
		"no file":         {Hash: hash},
		"a path":          {Hash: hash, Files: []file{{"a/b", 1, hash}}},
		"a parent":        {Hash: hash, Files: []file{{"..", 1, hash}}},
		"one name twice":  {Hash: hash, Files: []file{{"a", 1, hash}, {"a", 2, hash}}},
		"a hash's path":   {Hash: hash, Files: []file{{"a", 1, "../../../../etc/passwd"}}},
		"capitals":        {Hash: hash, Files: []file{{"a", 1, "AB" + hash[2:]}}},
		"a negative size": {Hash: hash, Files: []file{{"a", -1, hash}}},
		"no hash":         {Files: []file{{"a", 1, hash}}},
	} {
		if err := m.check(); !fault.Is(err, fault.Protocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNobodySpeaksInAnothersName(t *testing.T) {
	header := func(id, addr string) raft.RPCHeader {
		return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(addr)}
	}
	for name, c := range map[string]struct {
		command any
		want    bool
	}{
		"its own":              {&raft.AppendEntriesRequest{RPCHeader: header("a", "a")}, true},
		"its own vote":         {&raft.RequestVoteRequest{RPCHeader: header("a", "a")}, true},
		"another's":            {&raft.RequestVoteRequest{RPCHeader: header("b", "b")}, false},
		"another's address":    {&raft.RequestVoteRequest{RPCHeader: header("a", "b")}, false},
		"another's pre-vote":   {&raft.RequestPreVoteRequest{RPCHeader: header("b", "b")}, false},
		"another's entries":    {&raft.AppendEntriesRequest{RPCHeader: header("b", "b")}, false},
		"another's snapshot":   {&raft.InstallSnapshotRequest{RPCHeader: header("b", "b")}, false},
		"another's abdicating": {&raft.TimeoutNowRequest{RPCHeader: header("b", "b")}, false},
		"nobody's":             {&raft.AppendEntriesRequest{}, false},
		"no message":           {"x", false},
	} {
		if got := speaksAs(raft.RPC{Command: c.command}, "a"); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
