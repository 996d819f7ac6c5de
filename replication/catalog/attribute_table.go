package catalog

import "pelago/dimse/dict"

// level says whose attribute it is.
type level uint8

const (
	ofPatient level = iota
	ofStudy
	ofSeries
)

// attribute is an attribute that records hold.
type attribute struct {
	tag   dict.Tag
	vr    dict.VR
	level level
}

// attributes gives each attribute its code in stored records: its place. The
// table only ever grows at its end.
var attributes = [...]attribute{
	{dict.PatientName, dict.PN, ofPatient},
	{dict.PatientID, dict.LO, ofPatient},
	{dict.TypeOfPatientID, dict.CS, ofPatient},
	{dict.PatientBirthDate, dict.DA, ofPatient},
	{dict.PatientBirthTime, dict.TM, ofPatient},
	{dict.PatientSex, dict.CS, ofPatient},
	{dict.OtherPatientIDs, dict.LO, ofPatient},
	{dict.OtherPatientNames, dict.PN, ofPatient},
	{dict.EthnicGroup, dict.SH, ofPatient},

	{dict.StudyDate, dict.DA, ofStudy},
	{dict.StudyTime, dict.TM, ofStudy},
	{dict.AccessionNumber, dict.SH, ofStudy},
	{dict.ReferringPhysicianName, dict.PN, ofStudy},
	{dict.TimezoneOffsetFromUTC, dict.SH, ofStudy},
	{dict.StudyDescription, dict.LO, ofStudy},
	{dict.PhysiciansOfRecord, dict.PN, ofStudy},
	{dict.NameOfPhysiciansReadingStudy, dict.PN, ofStudy},
	{dict.AdmittingDiagnosesDescription, dict.LO, ofStudy},
	{dict.PatientAge, dict.AS, ofStudy},
	{dict.PatientSize, dict.DS, ofStudy},
	{dict.PatientWeight, dict.DS, ofStudy},
	{dict.Occupation, dict.SH, ofStudy},
	{dict.StudyID, dict.SH, ofStudy},

	{dict.SeriesDate, dict.DA, ofSeries},
	{dict.SeriesTime, dict.TM, ofSeries},
	{dict.Modality, dict.CS, ofSeries},
	{dict.Manufacturer, dict.LO, ofSeries},
	{dict.InstitutionName, dict.LO, ofSeries},
	{dict.StationName, dict.SH, ofSeries},
	{dict.SeriesDescription, dict.LO, ofSeries},
	{dict.InstitutionalDepartmentName, dict.LO, ofSeries},
	{dict.PerformingPhysicianName, dict.PN, ofSeries},
	{dict.OperatorsName, dict.PN, ofSeries},
	{dict.ManufacturerModelName, dict.LO, ofSeries},
	{dict.BodyPartExamined, dict.CS, ofSeries},
	{dict.ProtocolName, dict.LO, ofSeries},
	{dict.PatientPosition, dict.CS, ofSeries},
	{dict.SeriesNumber, dict.IS, ofSeries},
	{dict.Laterality, dict.CS, ofSeries},
	{dict.PerformedProcedureStepStartDate, dict.DA, ofSeries},
	{dict.PerformedProcedureStepStartTime, dict.TM, ofSeries},
	{dict.PerformedProcedureStepID, dict.SH, ofSeries},
	{dict.PerformedProcedureStepDescription, dict.LO, ofSeries},
}

// The codes that the package itself reads.
const (
	codePatientName = 0
	codePatientID   = 1
	codeStudyDate   = 9
	codeStudyTime   = 10
	codeModality    = 25
)

// The attributes that the catalogue holds, by level, in tag order. Unique keys
// and Issuer of Patient ID are among them; numbers that are computed are not
// (see [PatientCounts], [StudyCounts] and [SeriesCounts]).
var (
	PatientTags = tagsOf(ofPatient, dict.IssuerOfPatientID)
	StudyTags   = tagsOf(ofStudy, dict.StudyInstanceUID)
	SeriesTags  = tagsOf(ofSeries, dict.SeriesInstanceUID)
)

// The attributes that are computed from the records.
var (
	PatientCounts = []dict.Tag{dict.NumberOfPatientRelatedStudies, dict.NumberOfPatientRelatedSeries, dict.NumberOfPatientRelatedInstances}
	StudyCounts   = []dict.Tag{dict.ModalitiesInStudy, dict.SOPClassesInStudy, dict.NumberOfStudyRelatedSeries, dict.NumberOfStudyRelatedInstances}
	SeriesCounts  = []dict.Tag{dict.NumberOfSeriesRelatedInstances}
)
