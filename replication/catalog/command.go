package catalog

// SeriesFact is what one origin knows of a series: absolute values as of its
// local number AsOf. Count 0 means that the origin holds nothing of it any more.
// A fact older than what is known of the same origin changes nothing.
type SeriesFact struct {
	Origin string // node id
	Site   string
	AsOf   uint64
	Study  string
	Series string
	Issuer string // of the Patient ID, resolved (DESIGN §10); the id is in Attributes
	// Attributes is a data set in explicit little endian and ISO_IR 192 with the
	// attributes of PatientTags, StudyTags and SeriesTags that the origin has, as
	// [Attributes] makes it. A decoded fact has none: it keeps them in another form.
	Attributes []byte
	Instances  uint64
	Bytes      uint64
	UIDHash    [32]byte // sum modulo 2^256 of BLAKE3 of each SOP Instance UID; the first 16 bytes are told
	Classes    []string // SOP classes, ascending
	Reserved   bool     // the reserved series of Non-Patient Objects: in no query count
	Arrived    int64    // Unix microseconds of the latest arrival, for people only

	parsed   attrs // instead of Attributes, when isParsed
	isParsed bool
	support  *saying // what it is told by; nil: it is told in full
	leans    *lean   // what it was told by; nil: it was told in full. Attributes, Issuer, Classes and Reserved are then what differs
}

// Command is one change that a decision makes; one of the types below.
type Command interface{ command() }

// TombstoneFact says that an object is deleted; the empty Series or Instance
// widens it. Tick is committed time, Unix seconds. A second tombstone of the
// same object changes nothing, the first tick stands, unless something under it
// was accepted meanwhile (see [KindAccepted]).
type TombstoneFact struct {
	Study, Series, Instance string
	Tick                    int64
	By                      string
}

// RestoreFact takes a tombstone back within the delete grace: fault.NotFound
// when there is none of exactly this object, fault.Conflict after the grace, or when
// another version was accepted in its place.
type RestoreFact struct {
	Study, Series, Instance string
	Tick                    int64
	By                      string
}

// DeleteGraceSeconds is how long a tombstone can be taken back (DESIGN §2).
const DeleteGraceSeconds = 30 * 24 * 60 * 60

// RegistryFact sets or, with an empty Value, drops one registry record, such as
// an AE under ("ae", "SITE/TITLE"). Value is opaque here, but for the kind
// "member" (see [KindMember]).
type RegistryFact struct {
	Kind, Name string
	Value      []byte
}

func (*TombstoneFact) command() {}
func (*RestoreFact) command()   {}
func (*RegistryFact) command()  {}
