/* SPDX-License-Identifier: GPL-2.0-or-later */
	.code64
	.equ S, 0x200000
	.equ GHCB, 0x90000
	.equ VMSA, 0xa0000
	.equ FLAG, 0x92000
	.macro REP tag, reg
	mov \reg, %rsi
	mov $\tag, %edi
	call report
	.endm
	.macro SET off, val
	mov $\val, %rax
	mov %rax, VMSA+\off
	.endm
	.macro SEG off, sel, attr, limit, base
	mov $(((\limit) << 32) | ((\attr) << 16) | (\sel)), %rax
	mov %rax, VMSA+\off
	mov $\base, %rax
	mov %rax, VMSA+\off+8
	.endm
start:
	lea stack_top(%rip), %rsp
	jmp main
report:
	push %rax
	push %rcx
	push %rdx
	mov %rsi, %rax
	shl $24, %rax
	shr $8, %rax
	shl $56, %rdi
	or %rdi, %rax
	or $0x100, %rax
	call exch
	pop %rdx
	pop %rcx
	pop %rax
	ret
exch:	mov %rax, %rdx
	shr $32, %rdx
	mov $0xc0010130, %ecx
	wrmsr
	.byte 0xf3,0x0f,0x01,0xd9
	rdmsr
	mov %eax, %eax
	shl $32, %rdx
	or %rdx, %rax
	ret
main:
	mov $(GHCB+0x12), %rax
	call exch
	REP 1, %rax
	mov $VMSA, %rax
	xor %ecx, %ecx
	mov $1, %edx
	.byte 0xf2, 0x0f, 0x01, 0xff
	mov %eax, %eax
	REP 2, %rax
	mov $VMSA, %rdi
	mov $512, %ecx
	xor %eax, %eax
	.byte 0xf3,0x48,0xab
	SEG 0x00, 16, 0xc93, 0xffffffff, 0
	SEG 0x10, 8, 0xa9b, 0xffffffff, 0
	SEG 0x20, 16, 0xc93, 0xffffffff, 0
	SEG 0x30, 16, 0xc93, 0xffffffff, 0
	SEG 0x40, 16, 0xc93, 0xffffffff, 0
	SEG 0x50, 16, 0xc93, 0xffffffff, 0
	SEG 0x60, 0, 0, 0x1f, 0x6000
	SEG 0x70, 0, 0x82, 0xffff, 0
	SEG 0x80, 0, 0, 0, 0
	SEG 0x90, 0, 0x8b, 0xffff, 0
	SET 0xd0, 0x1d00
	SET 0x148, 0x220
	SET 0x150, 0x1000
	mov $0x80000031, %eax
	mov %rax, VMSA+0x158
	SET 0x160, 0x400
	mov $0xffff0ff0, %eax
	mov %rax, VMSA+0x168
	SET 0x170, 2
	SET 0x178, (0x10000+ap-start)
	SET 0x1d8, 0x11f00
	movabs $0x0007040600070406, %rax
	mov %rax, VMSA+0x268
	SET 0x3b0, 1
	SET 0x3e8, 1
	movl $0x1f80, VMSA+0x408
	movw $0x37f, VMSA+0x410
	mov $VMSA, %rax
	xor %ecx, %ecx
	mov $0x10001, %edx
	.byte 0xf3, 0x0f, 0x01, 0xfe
	mov %eax, %eax
	REP 3, %rax

	mov $S+GHCB, %rbx
	movabs $0x80000013, %rax
	mov %rax, 0x390(%rbx)
	movabs $0x100000001, %rax
	mov %rax, 0x398(%rbx)
	mov $VMSA, %rax
	mov %rax, 0x3a0(%rbx)
	mov $1, %eax
	mov %rax, 0x1f8(%rbx)
	movabs $0x8000000000000000, %rax
	mov %rax, 0x3f0(%rbx)
	movabs $0x1c000000000000, %rax
	mov %rax, 0x3f8(%rbx)
	movw $2, 0xffa(%rbx)
	movl $0, 0xffc(%rbx)
	mov $GHCB, %rax
	call exch
	mov 0x398(%rbx), %rax
	REP 4, %rax
1:	mov S+FLAG, %rax
	test %rax, %rax
	jz 1b
	REP 5, %rax
	mov $0x55, %edi
	mov $0x997, %esi
	call report
	hlt
ap:
	movabs $0x4150, %rax
	mov %rax, S+FLAG
2:	incq S+FLAG+8
	pause
	jmp 2b
	.align 4096
	.fill 4096, 1, 0
stack_top:
