/* SPDX-License-Identifier: GPL-2.0-or-later */
# Tiny SNP guest. Identity map 0-2M with C=1, 2M-4M is the same without C.
# report(tag, value): TERM request of the GHCB MSR protocol, tag in bits 63:56, value in 55:16
	.code64
	.macro REP tag, reg
	mov \reg, %rsi
	mov $\tag, %edi
	call report
	.endm
	.macro TRY insn:vararg
	xor %r14, %r14
	lea 991f(%rip), %r15
	\insn
991:
	.endm
	.macro PV va, size, val
	mov $\va, %rax
	mov $\size, %ecx
	mov $\val, %edx
	clc
	.byte 0xf2, 0x0f, 0x01, 0xff
	setc %bl
	movzx %bl, %ebx
	shl $8, %ebx
	movzx %al, %eax
	or %eax, %ebx
	.endm

	.equ X, 0x80000
	.equ S, 0x200000
	.globl start
	.org 0
start:
	lea stack_top(%rip), %rsp
	lidt idtr(%rip)
	cmp $1, %edi
	je skipper
	cmp $2, %edi
	je walker
	jmp main
skipper:
	lidt noidt(%rip)
	movq X, %rax
	jmp .
walker:
	# the leaf table of the shared alias is page 0x5000: take its validation away, then walk it
	TRY nop
	PV 0x5000, 0, 0
	REP 30, %rbx
	TRY movq S+X, %rax
	REP 31, %r14
	REP 32, %r13
	PV 0x5000, 0, 1
	REP 33, %rbx
	mov S+0x10000, %rax
	REP 34, %rax
	mov $0x55, %edi
	mov $0x998, %esi
	call report

# rdi tag, rsi value
report:
	push %rax
	push %rcx
	push %rdx
	mov %rsi, %rax
	shl $24, %rax
	shr $8, %rax		# 40 bits at 16
	shl $56, %rdi
	or %rdi, %rax
	or $0x100, %rax
	mov %rax, %rdx
	shr $32, %rdx
	mov $0xc0010130, %ecx
	wrmsr
	.byte 0xf3,0x0f,0x01,0xd9
	pop %rdx
	pop %rcx
	pop %rax
	ret

# exceptions: r14 = vector<<32 | error code, r13 = cr2, continue at r15
	.align 16
vc:	mov $29, %r14
	jmp common
	.align 16
pf:	mov $14, %r14
	jmp common
	.align 16
gp:	mov $13, %r14
	jmp common
	.align 16
ud:	push $0
	mov $6, %r14
	jmp common
df:	mov $8, %r14
common:
	shl $32, %r14
	pop %r12		# error code
	mov %r12d, %r12d
	or %r12, %r14
	mov %cr2, %r13
	mov %r15, (%rsp)
	iretq

main:
	mov $0xc0010131, %ecx
	rdmsr
	REP 1, %rax
	TRY movq X, %rax
	REP 2, %r14
	REP 3, %r13
	PV X, 0, 1
	REP 4, %rbx
	PV X, 0, 1
	REP 5, %rbx
	mov $0x1122334455667788, %rax
	movq %rax, X
	movq %rax, X+8
	movq X, %rbx
	xor %rax, %rbx
	REP 6, %rbx
	movq S+X, %rbx
	movabs $0x1122334455667788, %rax
	cmp %rax, %rbx
	sete %bl
	movzx %bl, %ebx
	REP 7, %rbx
	TRY cpuid
	REP 8, %r14
	TRY outb %al, $0x80
	REP 9, %r14
	PV X, 1, 1
	REP 10, %rbx
	PV 0, 1, 0
	REP 11, %rbx
	mov $S, %rax
	lea ret7(%rip), %rbx
	add %rax, %rbx
	call *%rbx
	REP 12, %rax
	TRY movq %rax, S+X
	REP 13, %r14
	movq S+X, %rbx
	REP 14, %rbx
	movq X, %rbx
	movabs $0x1122334455667788, %rax
	xor %rax, %rbx
	REP 15, %rbx
	REP 16, %rbx
	TRY movq X, %rbx
	REP 17, %r14
	PV X, 0, 1
	REP 18, %rbx
	movq X, %rbx
	xor %eax, %eax
	cmp %rax, %rbx
	sete %bl
	movzx %bl, %ebx
	REP 19, %rbx
	PV X, 0, 0
	REP 20, %rbx
	TRY movq X, %rbx
	REP 21, %r14
	mov $X, %rax
	shr $12, %rax
	shl $12, %rax
	movabs $(2<<52), %rdx
	or %rdx, %rax
	or $0x14, %rax
	mov %rax, %rdx
	shr $32, %rdx
	mov $0xc0010130, %ecx
	wrmsr
	.byte 0xf3,0x0f,0x01,0xd9
	rdmsr
	mov %eax, %eax
	shl $32, %rdx
	or %rdx, %rax
	REP 22, %rax

	TRY .byte 0x0f,0x01,0xd9
	REP 23, %r14
	mov $0xc0010010, %ecx
	TRY rdmsr
	REP 24, %r14
	TRY .byte 0xf2,0x0f,0x01,0xfe
	REP 25, %r14
	mov %cr4, %rax
	or $(1<<9), %rax
	mov %rax, %cr4
	mov %cr4, %rax
	REP 26, %rax
	movdqu pat(%rip), %xmm5
	REP 27, %rax
	movq %xmm5, %rax
	REP 28, %rax
	mov $0x55, %edi
	mov $0x999, %esi
	call report
	hlt
ret7:	mov $7, %eax
	ret
	.align 16
pat:	.quad 0x12345678, 0x9abcdef0

	.macro GATE target
	.word \target - start
	.word 8
	.byte 0, 0x8e
	.word 1
	.long 0, 0
	.endm
	.align 16
idt:	.fill 6*16, 1, 0
	GATE ud
	.fill 16, 1, 0
	GATE df
	.fill 4*16, 1, 0
	GATE gp
	GATE pf
	.fill 14*16, 1, 0
	GATE vc
idt_end:
noidt:	.word 0
	.quad 0
idtr:	.word idt_end - idt - 1
	.quad idt - start + 0x10000
	.align 4096
	.fill 4096, 1, 0
stack_top:
