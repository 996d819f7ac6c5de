#include "textflag.h"

// Words that are left of a row, by row: zero.
DATA leftOf<>+0x00(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x08(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x10(SB)/8, $0xffffffffffff0000
DATA leftOf<>+0x18(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x20(SB)/8, $0xffffffff00000000
DATA leftOf<>+0x28(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x30(SB)/8, $0xffff000000000000
DATA leftOf<>+0x38(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x40(SB)/8, $0x0000000000000000
DATA leftOf<>+0x48(SB)/8, $0xffffffffffffffff
DATA leftOf<>+0x50(SB)/8, $0x0000000000000000
DATA leftOf<>+0x58(SB)/8, $0xffffffffffff0000
DATA leftOf<>+0x60(SB)/8, $0x0000000000000000
DATA leftOf<>+0x68(SB)/8, $0xffffffff00000000
DATA leftOf<>+0x70(SB)/8, $0x0000000000000000
DATA leftOf<>+0x78(SB)/8, $0xffff000000000000
GLOBL leftOf<>(SB), RODATA|NOPTR, $128

// RESIDUALS joins eight residuals of a row: the low digits, with their sign, and
// the high ones above them. X12 is zero, T is lost.
#define RESIDUALS(lo, hi, R, T) \
	VPMOVSXBW lo, R \
	VMOVQ hi, T \
	VPUNPCKLBW T, X12, T \
	VPADDW T, R, R

// TRANSPOSE turns eight rows of eight words. The columns are, from the first, in
// p5, p6, p1, p0, p4, t, p2, p3; p7 is lost.
#define TRANSPOSE(p0, p1, p2, p3, p4, p5, p6, p7, t) \
	VPUNPCKLWD p1, p0, t \
	VPUNPCKHWD p1, p0, p1 \
	VPUNPCKLWD p3, p2, p0 \
	VPUNPCKHWD p3, p2, p3 \
	VPUNPCKLWD p5, p4, p2 \
	VPUNPCKHWD p5, p4, p5 \
	VPUNPCKLWD p7, p6, p4 \
	VPUNPCKHWD p7, p6, p7 \
	VPUNPCKLDQ p0, t, p6 \
	VPUNPCKHDQ p0, t, p0 \
	VPUNPCKLDQ p3, p1, t \
	VPUNPCKHDQ p3, p1, p3 \
	VPUNPCKLDQ p4, p2, p1 \
	VPUNPCKHDQ p4, p2, p4 \
	VPUNPCKLDQ p7, p5, p2 \
	VPUNPCKHDQ p7, p5, p7 \
	VPUNPCKLQDQ p1, p6, p5 \
	VPUNPCKHQDQ p1, p6, p6 \
	VPUNPCKLQDQ p4, p0, p1 \
	VPUNPCKHQDQ p4, p0, p0 \
	VPUNPCKLQDQ p2, t, p4 \
	VPUNPCKHQDQ p2, t, t \
	VPUNPCKLQDQ p7, p3, p2 \
	VPUNPCKHQDQ p7, p3, p3

// STEP restores a sample of each row: R holds their residuals, then the samples;
// LEFT the samples of the step before; CORNER what was above in it; ABOVE gets
// what is above now: each row's is what the row before had a step earlier.
#define STEP(at, R, LEFT, ABOVE, CORNER) \
	VPXOR at(BX), X11, X7 \
	VPALIGNR $14, X7, LEFT, ABOVE \
	VPSUBUSW CORNER, ABOVE, X14 \
	VPSUBUSW ABOVE, CORNER, X15 \
	VPADDUSW X14, LEFT, X14 \
	VPSUBUSW X15, LEFT, X15 \
	VPMINUW X14, ABOVE, X14 \
	VPMAXUW X15, X14, X14 \
	VPADDW X14, R, R

// func medJoinEight(dst, lo, hi, above *byte, tail *[128]byte, width int, turn uint16)
//
// DI, SI, DX, BX: dst, lo, hi, above at the first row's next sample; R8: bytes
// from a row's place in dst to the next row's, which is a sample behind; R9: the
// same in lo and hi; R10, R11: three times R8, R9; CX: samples to go.
// X9: the samples of the last step; X10: what was above them; X11: turn.
TEXT ·medJoinEight(SB), NOSPLIT, $0-50
	MOVQ dst+0(FP), DI
	MOVQ lo+8(FP), SI
	MOVQ hi+16(FP), DX
	MOVQ above+24(FP), BX
	MOVQ tail+32(FP), AX
	MOVQ width+40(FP), CX
	VPBROADCASTW turn+48(FP), X11
	VPXOR X9, X9, X9
	VPXOR X10, X10, X10
	VPXOR X12, X12, X12
	LEAQ -2(CX)(CX*1), R8
	LEAQ -1(CX), R9
	LEAQ (R8)(R8*2), R10
	LEAQ (R9)(R9*2), R11
	MOVQ CX, R14

block:
	LEAQ (SI)(R9*4), R12
	LEAQ (DX)(R9*4), R13
	RESIDUALS((SI), (DX), X0, X8)
	RESIDUALS((SI)(R9*1), (DX)(R9*1), X1, X13)
	RESIDUALS((SI)(R9*2), (DX)(R9*2), X2, X14)
	RESIDUALS((SI)(R11*1), (DX)(R11*1), X3, X15)
	RESIDUALS((R12), (R13), X4, X8)
	RESIDUALS((R12)(R9*1), (R13)(R9*1), X5, X13)
	RESIDUALS((R12)(R9*2), (R13)(R9*2), X6, X14)
	RESIDUALS((R12)(R11*1), (R13)(R11*1), X7, X15)
	CMPQ CX, R14
	JNE inside
	// Left of the rows residuals are zero, and so are samples.
	VPAND leftOf<>+0x10(SB), X1, X1
	VPAND leftOf<>+0x20(SB), X2, X2
	VPAND leftOf<>+0x30(SB), X3, X3
	VPAND leftOf<>+0x40(SB), X4, X4
	VPAND leftOf<>+0x50(SB), X5, X5
	VPAND leftOf<>+0x60(SB), X6, X6
	VPAND leftOf<>+0x70(SB), X7, X7

inside:
	TRANSPOSE(X0, X1, X2, X3, X4, X5, X6, X7, X8)
	STEP(-14, X5, X9, X13, X10)
	STEP(-12, X6, X5, X10, X13)
	STEP(-10, X1, X6, X13, X10)
	STEP(-8, X0, X1, X10, X13)
	STEP(-6, X4, X0, X13, X10)
	STEP(-4, X8, X4, X10, X13)
	STEP(-2, X2, X8, X13, X10)
	STEP(0, X3, X2, X10, X13)
	VMOVDQA X3, X9
	VPXOR X11, X5, X5
	VPXOR X11, X6, X6
	VPXOR X11, X1, X1
	VPXOR X11, X0, X0
	VPXOR X11, X4, X4
	VPXOR X11, X8, X8
	VPXOR X11, X2, X2
	VPXOR X11, X3, X3
	TRANSPOSE(X5, X6, X1, X0, X4, X8, X2, X3, X7)
	LEAQ (DI)(R8*4), R12
	VMOVDQU X8, (DI)
	VMOVDQU X2, (DI)(R8*1)
	VMOVDQU X6, (DI)(R8*2)
	VMOVDQU X5, (DI)(R10*1)
	VMOVDQU X4, (R12)
	VMOVDQU X7, (R12)(R8*1)
	VMOVDQU X1, (R12)(R8*2)
	VMOVDQU X0, (R12)(R10*1)
	ADDQ $16, DI
	ADDQ $16, BX
	ADDQ $8, SI
	ADDQ $8, DX
	SUBQ $8, CX
	JG block
	JL done
	// The rows' ends, of which the first has none left, go to tail.
	MOVQ AX, DI
	MOVQ $16, R8
	MOVQ $48, R10
	JMP block

done:
	RET
