/* SPDX-License-Identifier: GPL-2.0-or-later */
# What QEMU's -kernel loads as a Linux kernel (Linux, Documentation/arch/x86/boot.rst): a sector for the boot loader, one
# of 16-bit code, and what goes to 1 MiB, which ends in 64-bit C.  The first 4 GiB are mapped one to one, as large pages.
	.section .setup, "ax"
	.code16
	.org 0x1f1
	.byte 1			# setup_sects
	.org 0x1fe
	.word 0xaa55
entry:	.byte 0xeb, 0x66	# to 0x268, behind the header
	.ascii "HdrS"
	.word 0x203
	.org 0x211
	.byte 1			# LOADED_HIGH
	.org 0x268
	cli
	lgdtl %cs:real_gdt - entry
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $0x100000
real_gdt:
	.word gdt_end - gdt - 1
	.long gdt
	.org 0x400

	.section .text.start, "ax"
	.code32
	.globl _start
_start:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $stack_top, %esp
	mov $__bss_start, %edi
	mov $_end, %ecx
	sub %edi, %ecx
	xor %eax, %eax
	rep stosb
	# A page of four tables of 512 pages of 2 MiB
	mov $pd, %edi
	mov $0x83, %eax
1:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $8, %edi
	add $0x200000, %eax
	jnc 1b
	mov $pdpt, %edi
	mov $pd + 3, %eax
	mov $4, %ecx
2:	mov %eax, (%edi)
	add $8, %edi
	add $0x1000, %eax
	loop 2b
	movl $pdpt + 3, pml4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0x620, %eax	# PAE, OSFXSR, OSXMMEXCPT
	mov %eax, %cr4
	mov $0xc0000080, %ecx	# EFER.LME
	rdmsr
	or $0x100, %eax
	wrmsr
	mov $0x80010033, %eax	# PG, WP, NE, ET, MP, PE
	mov %eax, %cr0
	ljmp $24, $long
	.code64
long:
	mov $stack_top, %rsp
	call start
3:	hlt
	jmp 3b

# #UD, #GP, #PF: the vector, error code and address are kept, and what comes after the label "after" goes on.
	.macro EXCEPTION name, vector, error
	.globl \name
\name:	.ifeq \error
	push $0
	.endif
	push %rax
	movq $\vector, exception_vector
	mov 8(%rsp), %rax
	mov %rax, exception_error
	mov %cr2, %rax
	mov %rax, exception_address
	mov exception_after, %rax
	mov %rax, 16(%rsp)
	pop %rax
	add $8, %rsp
	iretq
	.endm
	EXCEPTION on_ud, 6, 0
	EXCEPTION on_gp, 13, 1
	EXCEPTION on_pf, 14, 1

	.data
	.balign 8
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	# 8: code, 32 bits
	.quad 0x00cf93000000ffff	# 16: data
	.quad 0x00af9b000000ffff	# 24: code, 64 bits
gdt_end:

	.bss
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
	.skip 16384
stack_top:
	.section .note.GNU-stack, "", @progbits
