package dimsetest

// Name is a person name in a specific character set (PS3.3 C.12.1.1.2).
type Name struct {
	Charset string // value of (0008,0005); "" for the default repertoire
	Bytes   string // as encoded, without padding
	Text    string // the same in UTF-8
}

// Names are person names in one character set after the other. The multi-byte ones
// are the examples of PS3.5 Annexes H, I, J and K.
var Names = []Name{
	{"", "Doe^Jane", "Doe^Jane"},
	{"", "Smith^John^Q^Dr.^III", "Smith^John^Q^Dr.^III"},
	{"ISO_IR 100", "M\xfcller^J\xf6rg", "Müller^Jörg"},
	{"ISO_IR 100", "Buc^J\xe9r\xf4me", "Buc^Jérôme"},
	{"ISO_IR 101", "Wa\xb3\xeasa^Lech", "Wałęsa^Lech"},
	{"ISO_IR 144", "\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", "Люкceмбypг"},
	{"ISO_IR 126", "\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"},
	{"ISO_IR 148", "\xc7avu\xfeo\xf0lu", "Çavuşoğlu"},
	{"ISO_IR 192", "Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe4\xb8\x9c=", "Wang^XiaoDong=王^小东="},
	{"ISO_IR 192", "Nguy\xe1\xbb\x85n^V\xc4\x83n", "Nguyễn^Văn"},
	{"GB18030", "Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="},
	{
		`\ISO 2022 IR 87`,
		"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
		"Yamada^Tarou=山田^太郎=やまだ^たろう",
	},
	{
		`ISO 2022 IR 13\ISO 2022 IR 87`,
		"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
		"ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
	},
	{
		`\ISO 2022 IR 149`,
		"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
		"Hong^Gildong=洪^吉洞=홍^길동",
	},
}
