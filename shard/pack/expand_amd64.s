#include "textflag.h"

// func expandGroups(plane, mask, groups *byte, count int) int
// Requires: AVX512F, POPCNT
TEXT ·expandGroups(SB), NOSPLIT, $0-40
	MOVQ plane+0(FP), DI
	MOVQ mask+8(FP), SI
	MOVQ groups+16(FP), DX
	MOVQ count+24(FP), CX
	MOVQ DX, R8

eight:
	MOVBLZX     (SI), AX
	KMOVW       AX, K1
	POPCNTL     AX, AX
	VPEXPANDQ.Z (DX), K1, Z0
	VMOVDQU64   Z0, (DI)
	LEAQ        (DX)(AX*8), DX
	INCQ        SI
	ADDQ        $64, DI
	DECQ        CX
	JNZ         eight

	VZEROUPPER
	SUBQ R8, DX
	MOVQ DX, ret+32(FP)
	RET
