package dict

import (
	"slices"
	"strings"
)

// class is a SOP class, meta SOP class or well-known SOP instance.
type class struct {
	uid, name string
	storage   bool
	retired   bool
}

// root is the standard's own UID root (PS3.5 §9.1, PS3.6 Annex A).
const root = "1.2.840.10008."

// storageRoot holds nearly all storage SOP classes, and those yet to come.
const storageRoot = "1.2.840.10008.5.1.4.1.1."

func lookupClass(uid string) (class, bool) {
	at, ok := slices.BinarySearchFunc(classes[:], uid, func(c class, uid string) int { return strings.Compare(c.uid, uid) })
	if !ok {
		return class{}, false
	}
	return classes[at], true
}

// ClassName returns the name of a registered SOP class, meta SOP class or
// well-known SOP instance, or "".
func ClassName(uid string) string {
	c, _ := lookupClass(uid)
	return c.name
}

// IsStorageClass reports whether a presentation context for the class counts
// as storage: registered storage, outside 1.2.840.10008, or unregistered under
// 1.2.840.10008.5.1.4.1.1 (DESIGN §9).
func IsStorageClass(uid string) bool {
	if uid == "" {
		return false
	}
	if c, ok := lookupClass(uid); ok {
		return c.storage
	}
	return !strings.HasPrefix(uid, root) || strings.HasPrefix(uid, storageRoot)
}

// StorageClasses returns the registered storage SOP classes, retired ones
// included, in ascending order of their text.
func StorageClasses() []string {
	var all []string
	for _, c := range classes {
		if c.storage {
			all = append(all, c.uid)
		}
	}
	return all
}

// IsNonPatient reports whether the storage class is a Non-Patient Object
// (PS3.4 Annex GG): hanging protocols, color palettes, implant templates…
func IsNonPatient(class string) bool {
	switch class {
	case HangingProtocolStorage, ColorPaletteStorage,
		GenericImplantTemplateStorage, ImplantAssemblyTemplateStorage, ImplantTemplateGroupStorage,
		CTDefinedProcedureProtocolStorage, XADefinedProcedureProtocolStorage, ProtocolApprovalStorage,
		InventoryStorage:
		return true
	}
	return false
}
