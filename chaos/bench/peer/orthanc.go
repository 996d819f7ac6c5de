package peer

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"pelago/chaos/proc"
)

//go:embed shim/stall.c
var shim []byte

// Shim compiles the library that takes the stall from a program it is preloaded
// into, and returns its path.
func Shim(ctx context.Context, dir string) (string, error) {
	source, library := filepath.Join(dir, "stall.c"), filepath.Join(dir, "stall.so")
	if err := os.WriteFile(source, shim, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-fPIC", "-shared", "-o", library, source, "-ldl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile the shim: %w: %s", err, out)
	}
	return library, nil
}

// OrthancPlugin is where Debian puts Orthanc's DICOMweb.
const OrthancPlugin = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"

// Orthanc starts Orthancs: SQLite, DICOMweb plugin, settings as shipped but for
// addresses, rights and known modalities.
type Orthanc struct {
	Preload    string         // library to preload; "": as shipped
	Modalities map[string]int // AE title → port of loopback
}

// Start implements [Starter].
func (o Orthanc) Start(ctx context.Context, dir string) (*Server, error) {
	binary, err := exec.LookPath("Orthanc")
	if err != nil {
		return nil, err
	}
	dicom, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	web, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "orthanc.json")
	b, err := json.MarshalIndent(o.configuration(dir, dicom, web), "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, b, 0o600); err != nil {
		return nil, err
	}
	name, env := "Orthanc", []string(nil)
	if o.Preload != "" {
		name, env = "Orthanc without the stall", []string{"LD_PRELOAD=" + o.Preload}
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", web)
	s := &Server{Dir: dir, AE: "ORTHANC", DICOM: fmt.Sprintf("127.0.0.1:%d", dicom), Web: base + "/dicom-web"}
	if s.Process, err = launch(name, dir, env, binary, config); err != nil {
		return nil, err
	}
	if err := errors.Join(s.await(ctx, readyTime, answers(base+"/system")), s.await(ctx, readyTime, accepts(s.DICOM))); err != nil {
		s.Kill()
		return nil, err
	}
	s.Count = func(ctx context.Context) (int64, error) { return orthancCount(ctx, base) }
	return s, nil
}

func (o Orthanc) configuration(dir string, dicom, web int) map[string]any {
	modalities := map[string]any{}
	for title, port := range o.Modalities {
		modalities[title] = []any{title, "127.0.0.1", port}
	}
	return map[string]any{
		"Name": "benchmark", "StorageDirectory": filepath.Join(dir, "storage"), "IndexDirectory": filepath.Join(dir, "index"),
		"Plugins":  []string{OrthancPlugin},
		"HttpPort": web, "DicomPort": dicom, "DicomAet": "ORTHANC",
		"RemoteAccessAllowed": true, "AuthenticationEnabled": false,
		"DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true, "DicomAlwaysAllowMove": true,
		"DicomModalities": modalities,
		"DicomWeb":        map[string]any{"Enable": true, "Root": "/dicom-web/"},
	}
}

func orthancCount(ctx context.Context, base string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/statistics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	var statistics struct {
		Instances int64 `json:"CountInstances"`
	}
	return statistics.Instances, json.NewDecoder(answer.Body).Decode(&statistics)
}
