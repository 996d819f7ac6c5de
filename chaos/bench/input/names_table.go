package input

// kinds are the modalities with their storage classes and their share.
var kinds = []struct {
	modality, class string
	percent         int
}{
	{"CT", CTImageStorage, 30},
	{"MR", "1.2.840.10008.5.1.4.1.1.4", 20},
	{"CR", "1.2.840.10008.5.1.4.1.1.1", 25},
	{"US", "1.2.840.10008.5.1.4.1.1.6.1", 15},
	{"OT", "1.2.840.10008.5.1.4.1.1.7", 10},
}

var regions = []string{"HEAD", "NECK", "CHEST", "ABDOMEN", "PELVIS", "SPINE", "KNEE", "SHOULDER", "HAND", "FOOT", "HEART", "WHOLE BODY"}

var families = []string{
	"SMITH", "MUELLER", "SCHMIDT", "MARTIN", "BERNARD", "DUBOIS", "ROSSI", "RUSSO", "GARCIA", "MARTINEZ", "LOPEZ", "SANCHEZ",
	"NOVAK", "SVOBODA", "KOWALSKI", "NOWAK", "JENSEN", "NIELSEN", "HANSEN", "ANDERSSON", "JOHANSSON", "KORHONEN", "VIRTANEN",
	"PAPADOPOULOS", "YILMAZ", "KAYA", "DEMIR", "IVANOV", "PETROV", "HORVAT", "NAGY", "KOVACS", "TOTH", "POPESCU", "SILVA",
	"SANTOS", "FERREIRA", "MURPHY", "KELLY", "OBRIEN", "JONES", "WILLIAMS", "TAYLOR", "BROWN", "DAVIES", "DEVRIES", "JANSEN",
	"VANDENBERG", "BAKKER", "PEETERS", "MAES", "WEBER", "MEYER", "WAGNER", "BECKER", "HOFFMANN", "ZIMMERMANN", "STEIN", "ANNAN", "HANNAWAY",
}

var givens = []string{
	"ANNA", "JOHANNA", "SUSANNA", "HANNAH", "MARIA", "EVA", "SOPHIE", "EMMA", "JULIA", "LAURA", "SARA", "ELENA", "OLGA", "INGRID",
	"MARTA", "PAULA", "CLARA", "NORA", "ALICE", "RUTH", "JOHN", "PETER", "PAUL", "THOMAS", "MARTIN", "JAN", "HANS", "ERIK", "LARS",
	"ANDREAS", "STEFAN", "MICHAEL", "DAVID", "DANIEL", "MARCO", "LUCA", "PABLO", "JOSE", "MIGUEL", "IVAN", "PAVEL", "MEHMET", "ALI",
	"OMAR", "PATRICK", "SEAN", "OWEN", "GARETH", "PIERRE", "LOUIS",
}
