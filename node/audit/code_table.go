package audit

// Code is a coded value (PS3.15 A.5.1, CodedValueType).
type Code struct {
	Value   string `json:"code"`
	System  string `json:"system"`
	Meaning string `json:"meaning"`
}

func dcm(value, meaning string) Code { return Code{value, "DCM", meaning} }

// The functions below are the codes of PS3.16 CID 400 to 405 and of PS3.15
// A.5.1.2.4 that this archive uses.

func codeApplicationActivity() Code  { return dcm("110100", "Application Activity") }
func codeAuditLogUsed() Code         { return dcm("110101", "Audit Log Used") }
func codeBeginTransferring() Code    { return dcm("110102", "Begin Transferring DICOM Instances") }
func codeInstancesAccessed() Code    { return dcm("110103", "DICOM Instances Accessed") }
func codeInstancesTransferred() Code { return dcm("110104", "DICOM Instances Transferred") }
func codeStudyDeleted() Code         { return dcm("110105", "DICOM Study Deleted") }
func codeExport() Code               { return dcm("110106", "Export") }
func codeImport() Code               { return dcm("110107", "Import") }
func codeNetworkEntry() Code         { return dcm("110108", "Network Entry") }
func codeQuery() Code                { return dcm("110112", "Query") }
func codeSecurityAlert() Code        { return dcm("110113", "Security Alert") }
func codeUserAuthentication() Code   { return dcm("110114", "User Authentication") }

func codeApplicationStart() Code { return dcm("110120", "Application Start") }
func codeApplicationStop() Code  { return dcm("110121", "Application Stop") }
func codeLogin() Code            { return dcm("110122", "Login") }
func codeLogout() Code           { return dcm("110123", "Logout") }
func codeAttach() Code           { return dcm("110124", "Attach") }
func codeDetach() Code           { return dcm("110125", "Detach") }

// NodeAuthentication is a type of security alert (PS3.15 A.5.3.11): a node could not prove, or proved, who it is.
func NodeAuthentication() Code { return dcm("110126", "Node Authentication") }

// EmergencyOverride is a type of security alert (PS3.15 A.5.3.11): someone overrode an access rule.
func EmergencyOverride() Code { return dcm("110127", "Emergency Override Started") }

// NetworkConfiguration is a type of security alert (PS3.15 A.5.3.11): addresses, the AE registry or sites were changed.
func NetworkConfiguration() Code { return dcm("110128", "Network Configuration") }

// SecurityConfiguration is a type of security alert (PS3.15 A.5.3.11): rights, certificates or logins were changed.
func SecurityConfiguration() Code { return dcm("110129", "Security Configuration") }

// SoftwareConfiguration is a type of security alert (PS3.15 A.5.3.11): other configuration was changed.
func SoftwareConfiguration() Code { return dcm("110131", "Software Configuration") }

// RestrictedFunction is a type of security alert (PS3.15 A.5.3.11): something was tried that the user or AE may not do.
func RestrictedFunction() Code { return dcm("110132", "Use of Restricted Function") }

// RecordingStopped is a type of security alert (PS3.15 A.5.3.11): the audit log was stopped.
func RecordingStopped() Code { return dcm("110133", "Audit Recording Stopped") }

// RecordingStarted is a type of security alert (PS3.15 A.5.3.11): the audit log was started.
func RecordingStarted() Code { return dcm("110134", "Audit Recording Started") }

func roleApplication() Code      { return dcm("110150", "Application") }
func roleLauncher() Code         { return dcm("110151", "Application Launcher") }
func roleDestination() Code      { return dcm("110152", "Destination Role ID") }
func roleSource() Code           { return dcm("110153", "Source Role ID") }
func roleDestinationMedia() Code { return dcm("110154", "Destination Media") }
func roleSourceMedia() Code      { return dcm("110155", "Source Media") }

func idStudy() Code    { return dcm("110180", "Study Instance UID") }
func idClass() Code    { return dcm("110181", "SOP Class UID") }
func idPatient() Code  { return Code{"2", "RFC-3881", "Patient Number"} }
func idURI() Code      { return Code{"12", "RFC-3881", "URI"} }
func idSecurity() Code { return Code{"13", "99PELAGO", "Security Resource"} }
