// Package page is the operators' page: three embedded files that show what
// GET /api/status says, asked again every two seconds. There is no build step, no
// framework and no other host: a hospital's network may have no way out.
//
// The page is as guarded as the API it reads. Its content policy lets it load
// and ask nothing but itself, and run no script but its own file; what the status
// holds is only ever put into text, never into markup. It shows no patient, study
// or series.
package page
