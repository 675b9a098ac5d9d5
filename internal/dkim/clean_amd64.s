#include "textflag.h"

// func cleanBlocks(p []byte) int
//
// Y15 is all spaces, Y14 all tabs. Each step looks at 64 octets and the one after them.
TEXT ·cleanBlocks(SB), NOSPLIT, $0-32
	MOVQ         p_base+0(FP), SI
	MOVQ         p_len+8(FP), CX
	XORQ         AX, AX
	MOVQ         $0x0920, DX
	VMOVQ        DX, X15
	VPSRLW       $8, X15, X14
	VPBROADCASTB X15, Y15
	VPBROADCASTB X14, Y14
	SUBQ         $64, CX

next:
	CMPQ     AX, CX
	JGE      done
	VMOVDQU  (SI)(AX*1), Y0
	VMOVDQU  1(SI)(AX*1), Y1
	VMOVDQU  32(SI)(AX*1), Y2
	VMOVDQU  33(SI)(AX*1), Y3
	VPCMPEQB Y0, Y15, Y4          // a space
	VPCMPEQB Y2, Y15, Y5
	VPMINUB  Y1, Y15, Y6
	VPMINUB  Y3, Y15, Y7
	VPCMPEQB Y1, Y6, Y6           // and then an octet up to ' '
	VPCMPEQB Y3, Y7, Y7
	VPAND    Y4, Y6, Y4
	VPAND    Y5, Y7, Y5
	VPCMPEQB Y0, Y14, Y0          // or a tab
	VPCMPEQB Y2, Y14, Y2
	VPOR     Y0, Y4, Y4
	VPOR     Y2, Y5, Y5
	VPOR     Y4, Y5, Y4
	VPTEST   Y4, Y4
	JNZ      done
	ADDQ     $64, AX
	JMP      next

done:
	VZEROUPPER
	MOVQ AX, ret+24(FP)
	RET
