package placement

// KindCode is the registry's kind of the record of the code. Where there is one the
// network is not one of one site, whatever else is known.
const KindCode = kindCode
