package pack

import "golang.org/x/sys/cpu"

// expand puts the groups that a mask says are there in their places in plane, of
// eight groups for each byte of the mask, and zeros in the others. It returns how
// many bytes of groups it took. groups must hold all of them, and one more.
func expand(plane, mask, groups []byte) int {
	if len(mask) == 0 || !cpu.X86.HasAVX512F || !cpu.X86.HasPOPCNT {
		return expandPlain(plane, mask, groups)
	}
	_ = plane[8*groupBytes*len(mask)-1]
	return expandGroups(&plane[0], &mask[0], &groups[0], len(mask))
}

// expandGroups is expand for count bytes of a mask, at least one. It reads no
// group but those that are there.
//
//go:noescape
func expandGroups(plane, mask, groups *byte, count int) int
