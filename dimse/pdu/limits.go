package pdu

const (
	// MaxAssociateBytes is the longest A-ASSOCIATE-RQ or -AC that is read. 128
	// contexts with 60 transfer syntaxes of 64 characters each are 530 KB.
	MaxAssociateBytes = 1 << 20

	// MaxContexts is the number of odd presentation context ids (PS3.8 §9.3.2.2).
	MaxContexts = 128

	// MaxSyntaxes is the number of transfer syntaxes of one context: twice as
	// many as PS3.6 registers.
	MaxSyntaxes = 128

	// MaxUserItems is the number of role selection, extended and common
	// extended negotiation items, each. A sensible peer sends one per SOP class, of
	// which PS3.6 registers some 300.
	MaxUserItems = 1024

	// MaxRelated is the number of related general SOP classes of one common
	// extended negotiation item; PS3.4 §B.5 knows at most a handful.
	MaxRelated = 256

	// MaxTitle is the length of an AE title (PS3.8 table 9-11).
	MaxTitle = 16

	// MaxUID is the length of a UID (PS3.5 §9.1). Longer ones are decoded, since
	// they bind nobody, and never encoded.
	MaxUID = 64
)
