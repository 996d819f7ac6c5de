package match

import "pelago/dimse/dict"

// partnerOf returns the TM attribute that belongs to a DA attribute, or the DA
// attribute that belongs to a TM. (0008,0201) governs them and combined matching
// joins them. Birth dates are dates of a register, not moments: they have none.
func partnerOf(t dict.Tag) (dict.Tag, bool) {
	for _, p := range [...][2]dict.Tag{
		{dict.StudyDate, dict.StudyTime},
		{dict.SeriesDate, dict.SeriesTime},
		{dict.AcquisitionDate, dict.AcquisitionTime},
		{dict.ContentDate, dict.ContentTime},
		{dict.InstanceCreationDate, dict.InstanceCreationTime},
		{dict.ScheduledProcedureStepStartDate, dict.ScheduledProcedureStepStartTime},
		{dict.ScheduledProcedureStepEndDate, dict.ScheduledProcedureStepEndTime},
		{dict.PerformedProcedureStepStartDate, dict.PerformedProcedureStepStartTime},
		{dict.PerformedProcedureStepEndDate, dict.PerformedProcedureStepEndTime},
		{dict.OverlayDate, dict.OverlayTime},
		{dict.CurveDate, dict.CurveTime},
		{dict.StudyVerifiedDate, dict.StudyVerifiedTime},
		{dict.StudyReadDate, dict.StudyReadTime},
		{dict.ScheduledStudyStartDate, dict.ScheduledStudyStartTime},
		{dict.ScheduledStudyStopDate, dict.ScheduledStudyStopTime},
		{dict.StudyArrivalDate, dict.StudyArrivalTime},
		{dict.StudyCompletionDate, dict.StudyCompletionTime},
		{dict.AdmittingDate, dict.AdmittingTime},
		{dict.DischargeDate, dict.DischargeTime},
		{dict.PresentationCreationDate, dict.PresentationCreationTime},
		{dict.StructureSetDate, dict.StructureSetTime},
		{dict.RTPlanDate, dict.RTPlanTime},
		{dict.TreatmentDate, dict.TreatmentTime},
		{dict.TreatmentControlPointDate, dict.TreatmentControlPointTime},
		{dict.ReviewDate, dict.ReviewTime},
		{dict.DateOfSecondaryCapture, dict.TimeOfSecondaryCapture},
		{dict.DateOfLastCalibration, dict.TimeOfLastCalibration},
		{dict.CreationDate, dict.CreationTime},
	} {
		switch t {
		case p[0]:
			return p[1], true
		case p[1]:
			return p[0], true
		}
	}
	return 0, false
}
