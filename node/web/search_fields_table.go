package web

import "pelago/dimse/dict"

// Attributes that a search answers without being asked (PS3.18 tables 10.6.3-3
// to 10.6.3-5; the engine adds what it computes: counts, modalities,
// availability). Study Description and Series Date are not in the tables, but
// every worklist shows them.
var (
	studyFields = []dict.Tag{
		0x00080005, // Specific Character Set
		0x00080020, // Study Date
		0x00080030, // Study Time
		0x00080050, // Accession Number
		0x00080056, // Instance Availability
		0x00080061, // Modalities in Study
		0x00080090, // Referring Physician's Name
		0x00080201, // Timezone Offset From UTC
		0x00081030, // Study Description
		0x00100010, // Patient's Name
		0x00100020, // Patient ID
		0x00100021, // Issuer of Patient ID (DESIGN §10: answers always carry it)
		0x00100030, // Patient's Birth Date
		0x00100040, // Patient's Sex
		0x0020000D, // Study Instance UID
		0x00200010, // Study ID
		0x00201206, // Number of Study Related Series
		0x00201208, // Number of Study Related Instances
	}
	seriesFields = []dict.Tag{
		0x00080005,
		0x00080021, // Series Date
		0x00080031, // Series Time
		0x00080060, // Modality
		0x00080201,
		0x0008103E, // Series Description
		0x0020000D,
		0x0020000E, // Series Instance UID
		0x00200011, // Series Number
		0x00201209, // Number of Series Related Instances
		0x00400244, // Performed Procedure Step Start Date
		0x00400245, // Performed Procedure Step Start Time
		0x00400275, // Request Attributes Sequence
	}
	instanceFields = []dict.Tag{
		0x00080005,
		0x00080016, // SOP Class UID
		0x00080018, // SOP Instance UID
		0x00080056,
		0x00080201,
		0x0020000D,
		0x0020000E,
		0x00200013, // Instance Number
		0x00280008, // Number of Frames
		0x00280010, // Rows
		0x00280011, // Columns
		0x00280100, // Bits Allocated
	}
)

// listTags are the code attributes whose key may be a list (DESIGN §9,
// Matching), besides everything of VR UI.
var listTags = map[dict.Tag]bool{
	0x00080060: true, // Modality
	0x00080061: true, // Modalities in Study
	0x00080062: true, // SOP Classes in Study (UI)
	0x00080056: true, // Instance Availability
}
