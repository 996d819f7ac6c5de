package peer

import "context"

// Server is something that stores, and perhaps finds and gives back.
type Server struct {
	*Process
	Dir   string // where it keeps everything; its log is beside it
	AE    string // its title
	DICOM string // host:port; "" when it speaks no DIMSE
	Web   string // base URL of its DICOMweb, or of the files; "" for none

	// Count returns how many instances it holds; nil: it cannot tell.
	Count func(ctx context.Context) (int64, error)
}

// Starter starts a server on a directory, empty or as it was left.
type Starter func(ctx context.Context, dir string) (*Server, error)
