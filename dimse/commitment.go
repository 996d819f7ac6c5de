package dimse

import (
	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Action and event types of the Storage Commitment Push Model (PS3.4 J.3).
const (
	CommitmentRequestAction = 1 // N-ACTION: request storage commitment
	CommitmentSuccessEvent  = 1 // N-EVENT-REPORT: all committed
	CommitmentFailuresEvent = 2 // N-EVENT-REPORT: some are not
	maxCommitmentReferences = 1 << 18
	maxCommitmentUIDBytes   = 64
)

// The attributes of the requests and results.
const (
	tagRetrieveAE         dict.Tag = 0x00080054
	tagReferencedClass    dict.Tag = 0x00081150
	tagReferencedInstance dict.Tag = 0x00081155
	tagTransaction        dict.Tag = 0x00081195
	tagFailureReason      dict.Tag = 0x00081197
	tagFailedSequence     dict.Tag = 0x00081198
	tagReferencedSequence dict.Tag = 0x00081199
)

// Reference names an instance whose storage is to be, or was, committed.
type Reference struct{ Class, Instance string }

// FailedReference is an instance that was not committed, and why: a value of
// Failure Reason (0008,1197), PS3.3 C.14.1.1.
type FailedReference struct {
	Reference
	Reason uint16
}

// CommitmentRequest asks for storage commitment (PS3.4 table J.3-1).
type CommitmentRequest struct {
	Transaction string
	References  []Reference
}

// CommitmentResult answers a request (PS3.4 table J.3-2).
type CommitmentResult struct {
	Transaction string
	Committed   []Reference
	Failed      []FailedReference
	RetrieveAE  string // where they can be retrieved from; "" = not said
}

// EventType returns 1 when everything was committed, else 2.
func (r *CommitmentResult) EventType() uint16 {
	if len(r.Failed) > 0 {
		return CommitmentFailuresEvent
	}
	return CommitmentSuccessEvent
}

// Dataset returns the request's Action Information.
func (r *CommitmentRequest) Dataset() *dicom.Dataset {
	d := bare()
	d.Set(tagTransaction, dict.UI, r.Transaction)
	d.SetSequence(tagReferencedSequence, referenceItems(r.References)...)
	return d
}

// Dataset returns the result's Event Information.
func (r *CommitmentResult) Dataset() *dicom.Dataset {
	d := bare()
	if r.RetrieveAE != "" {
		d.Set(tagRetrieveAE, dict.AE, r.RetrieveAE)
	}
	d.Set(tagTransaction, dict.UI, r.Transaction)
	if len(r.Failed) > 0 {
		items := make([]*dicom.Dataset, len(r.Failed))
		for i, f := range r.Failed {
			items[i] = referenceItem(f.Reference)
			items[i].SetUint(tagFailureReason, dict.US, uint64(f.Reason))
		}
		d.SetSequence(tagFailedSequence, items...)
	}
	if len(r.Committed) > 0 {
		d.SetSequence(tagReferencedSequence, referenceItems(r.Committed)...)
	}
	return d
}

// ParseCommitmentRequest reads Action Information. fault.Mismatch: no
// Transaction UID, no reference, or a reference without its UIDs.
func ParseCommitmentRequest(d *dicom.Dataset) (*CommitmentRequest, error) {
	transaction, err := parseTransaction(d)
	if err != nil {
		return nil, err
	}
	references, err := parseReferences(d.Get(tagReferencedSequence))
	if err != nil {
		return nil, err
	}
	if len(references) == 0 {
		return nil, fault.New(fault.Mismatch, "storage commitment: no Referenced SOP Sequence")
	}
	return &CommitmentRequest{Transaction: transaction, References: references}, nil
}

// ParseCommitmentResult reads Event Information; errors as
// [ParseCommitmentRequest], but both lists may be empty.
func ParseCommitmentResult(d *dicom.Dataset) (*CommitmentResult, error) {
	transaction, err := parseTransaction(d)
	if err != nil {
		return nil, err
	}
	result := &CommitmentResult{Transaction: transaction, RetrieveAE: d.String(tagRetrieveAE)}
	if result.Committed, err = parseReferences(d.Get(tagReferencedSequence)); err != nil {
		return nil, err
	}
	failed := d.Get(tagFailedSequence)
	references, err := parseReferences(failed)
	if err != nil {
		return nil, err
	}
	for i, r := range references {
		reason, _ := failed.Items[i].Int(tagFailureReason)
		result.Failed = append(result.Failed, FailedReference{Reference: r, Reason: uint16(reason)})
	}
	return result, nil
}

func parseTransaction(d *dicom.Dataset) (string, error) {
	transaction := d.String(tagTransaction)
	if transaction == "" || len(transaction) > maxCommitmentUIDBytes {
		return "", fault.New(fault.Mismatch, "storage commitment: no Transaction UID of 1 to %d characters", maxCommitmentUIDBytes)
	}
	return transaction, nil
}

func parseReferences(e *dicom.Element) ([]Reference, error) {
	if e == nil {
		return nil, nil
	}
	if len(e.Items) > maxCommitmentReferences {
		return nil, fault.New(fault.Full, "storage commitment: %d references are more than %d", len(e.Items), maxCommitmentReferences)
	}
	references := make([]Reference, len(e.Items))
	for i, item := range e.Items {
		r := Reference{Class: item.String(tagReferencedClass), Instance: item.String(tagReferencedInstance)}
		if r.Class == "" || r.Instance == "" || len(r.Class) > maxCommitmentUIDBytes || len(r.Instance) > maxCommitmentUIDBytes {
			return nil, fault.New(fault.Mismatch, "storage commitment: reference %d lacks a valid class or instance UID", i+1)
		}
		references[i] = r
	}
	return references, nil
}

func referenceItems(references []Reference) []*dicom.Dataset {
	items := make([]*dicom.Dataset, len(references))
	for i, r := range references {
		items[i] = referenceItem(r)
	}
	return items
}

func referenceItem(r Reference) *dicom.Dataset {
	d := bare()
	d.Set(tagReferencedClass, dict.UI, r.Class)
	d.Set(tagReferencedInstance, dict.UI, r.Instance)
	return d
}

// bare returns a data set of UIDs and numbers only, which needs no Specific
// Character Set.
func bare() *dicom.Dataset {
	d := dicom.NewDataset()
	d.Remove(0x00080005)
	return d
}
