package dimse

// Service classes and well-known instances (PS3.6 Annex A).
const (
	Verification              = "1.2.840.10008.1.1"
	StorageService            = "1.2.840.10008.4.2" // the service class, as SOP Class Common Extended Negotiation names it
	StorageCommitment         = "1.2.840.10008.1.20.1"
	StorageCommitmentInstance = "1.2.840.10008.1.20.1.1" // PS3.4 J.3.5
)

// Operation is a DIMSE service as a client asks for it.
type Operation uint8

// The operations. The numbers of the first three are the last component of
// their SOP class UIDs.
const (
	Find   Operation = 1
	Move   Operation = 2
	Get    Operation = 3
	Echo   Operation = 4
	Store  Operation = 5
	Commit Operation = 6 // N-ACTION of storage commitment
	Report Operation = 7 // N-EVENT-REPORT of storage commitment
)

// Operations returns every operation, for the tests that walk them all.
func Operations() []Operation { return []Operation{Find, Move, Get, Echo, Store, Commit, Report} }

// String returns the DIMSE service's name.
func (o Operation) String() string {
	switch o {
	case Find:
		return "C-FIND"
	case Move:
		return "C-MOVE"
	case Get:
		return "C-GET"
	case Echo:
		return "C-ECHO"
	case Store:
		return "C-STORE"
	case Commit:
		return "N-ACTION"
	case Report:
		return "N-EVENT-REPORT"
	}
	return "unknown operation"
}

// Root is a query/retrieve information model (PS3.4 C.6).
type Root uint8

// The information models. Patient/study only is retired and still in use.
const (
	PatientRoot      Root = 1
	StudyRoot        Root = 2
	PatientStudyOnly Root = 3
)

// queryRetrieve is the stem of the query/retrieve SOP class UIDs.
const queryRetrieve = "1.2.840.10008.5.1.4.1.2."

// Roots returns the information models.
func Roots() []Root { return []Root{PatientRoot, StudyRoot, PatientStudyOnly} }

// Class returns the SOP class of an operation of the model: [Find], [Move] or
// [Get].
func (r Root) Class(o Operation) string {
	return queryRetrieve + string('0'+byte(r)) + "." + string('0'+byte(o))
}

// QueryClass tells which model and operation a SOP class is; false for any
// other class.
func QueryClass(uid string) (Root, Operation, bool) {
	for _, r := range Roots() {
		for _, o := range []Operation{Find, Move, Get} {
			if r.Class(o) == uid {
				return r, o, true
			}
		}
	}
	return 0, 0, false
}
