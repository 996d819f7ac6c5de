package keyring

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"pelago/cluster/call"
	"pelago/cluster/fault"
)

// pathHeld is the peer call that asks what a node holds, GET.
const pathHeld = "/keys/held"

// maxHeldBody bounds the answer: the numbers of identity.MaxEpochs.
const maxHeldBody = 64 << 10

// Held is what a node holds of the network's keys, durably.
type Held struct {
	Version int      `json:"version"`
	Epochs  []uint32 `json:"epochs"` // ascending
	// StudyKeys is the place in the order of commit up to which it has kept all study
	// keys (catalog.StudyKey.At); 0: none.
	StudyKeys uint64 `json:"study_keys"`
}

// Opens reports whether who holds this can unwrap a study key that stands at a place
// in the order of commit, wrapped under an epoch.
func (h Held) Opens(epoch uint32, at uint64) bool {
	_, found := slices.BinarySearch(h.Epochs, epoch)
	return found && h.StudyKeys >= at
}

// Handler answers other members' calls under /keys/. studyKeys is [Studies.At]; nil:
// this node keeps none of others.
func (k *Keeper) Handler(studyKeys func() uint64) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathHeld, func(w http.ResponseWriter, _ *http.Request) {
		held := Held{Version: recordVersion}
		if studyKeys != nil { // before the epochs: it never says more than is true at one moment
			held.StudyKeys = studyKeys()
		}
		if held.Epochs = k.o.Self.Epochs(); held.Epochs == nil {
			held.Epochs = []uint32{}
		}
		b, err := json.Marshal(held)
		if err != nil {
			call.Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // an asker that is gone asks again
	})
	return mux
}

// Ask asks a node what it holds. fault.Unavailable if it does not answer,
// fault.Invalid if what it answers is none.
func Ask(ctx context.Context, peers *call.Client, node string) (Held, error) {
	answer, err := peers.Do(ctx, node, http.MethodGet, pathHeld, nil)
	if err != nil {
		return Held{}, err
	}
	defer answer.Body.Close()
	b, err := call.Read(answer.Body, maxHeldBody)
	if err != nil {
		return Held{}, err
	}
	var held Held
	if err := json.Unmarshal(b, &held); err != nil || held.Version != recordVersion || !slices.IsSorted(held.Epochs) {
		return Held{}, fault.New(fault.Invalid, "keyring: what node %s says that it holds does not parse", node)
	}
	return held, nil
}
