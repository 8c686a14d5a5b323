/* SPDX-License-Identifier: GPL-2.0-or-later */
# Tiny TD.  Identity map 0-2M is private, 2M-4M is the same shared (bit 47 of the GPA).  Loaded at CODE, entered in 32-bit mode.
# report(tag, value): two writes of 4 bytes to ports PORT + 2 * tag and the next, by TDG.VP.VMCALL<Instruction.IO>.
	.equ CODE, 0x10000
	.equ PAGE_TABLES, 0x1000
	.equ MODE, 0x7000
	.equ PORT, 0x1000
	.equ X, 0x80000
	.equ Y, 0x81000
	.equ Z, 0x82000
	.equ S, 0x200000
	.equ SHARED_BIT, 1 << 47

	.macro REP tag, reg
	mov \reg, %rsi
	mov $\tag, %edi
	call report
	.endm
	# Whether and how the instruction faults: see "exception"
	.macro TRY insn:vararg
	xor %r14, %r14
	xor %r13, %r13
	lea 991f(%rip), %rbp
	\insn
991:
	.endm
	.macro TDCALL leaf
	mov $\leaf, %eax
	.byte 0x66, 0x0f, 0x01, 0xcc
	.endm
	.macro ACCEPT gpa, level
	movabs $(\gpa + \level), %rcx
	TDCALL 6
	.endm
	# To shared with the bit, to private without
	.macro MAPGPA gpa
	mov $0x3c00, %ecx
	xor %r10, %r10
	mov $0x10001, %r11d
	movabs $(\gpa), %r12
	mov $0x1000, %r13d
	TDCALL 0
	.endm

	.code32
	.globl start
start:
	lgdtl CODE + gdt_register - start
	mov $0x660, %eax	# PAE, MCE, OSFXSR, OSXMMEXCPT
	mov %eax, %cr4
	mov $PAGE_TABLES, %eax
	mov %eax, %cr3
	mov $0x80010033, %eax	# the module has set EFER.LME
	mov %eax, %cr0
	ljmp $8, $(CODE + main - start)

	.code64
# rdi tag, rsi value; keeps all but the flags
report:
	push %rax
	push %rcx
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	lea PORT(,%rdi,2), %r14
	mov %esi, %r15d
	call out
	inc %r14
	mov %rsi, %r15
	shr $32, %r15
	call out
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %rcx
	pop %rax
	ret
out:	mov $0xfc00, %ecx
	xor %r10, %r10
	mov $30, %r11d
	mov $4, %r12d
	mov $1, %r13d
	TDCALL 0
	ret

# r14 = vector << 32 | error code or, of #VE, exit reason; r13 = GPA of #VE or CR2; goes on at rbp
	.macro EXCEPTION name, vector, error
	.align 16
\name:	.ifeq \error
	push $0
	.endif
	mov $\vector, %r14d
	jmp exception
	.endm
	EXCEPTION on_ud, 6, 0
	EXCEPTION on_gp, 13, 1
	EXCEPTION on_pf, 14, 1
	EXCEPTION on_mc, 18, 0
	.align 16
on_ve:	push $0
	push %rax
	push %rcx
	push %rdx
	push %r8
	push %r9
	push %r10
	TDCALL 3
	mov %ecx, 48(%rsp)
	mov %r9, %r13
	pop %r10
	pop %r9
	pop %r8
	pop %rdx
	pop %rcx
	pop %rax
	mov $20, %r14d
	jmp have_address
exception:
	mov %cr2, %r13
have_address:
	shl $32, %r14
	add (%rsp), %r14
	lea 8(%rsp), %rsp
	mov %rbp, (%rsp)
	iretq

main:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	lea stack_top(%rip), %rsp
	mov MODE, %eax
	cmp $1, %eax
	je no_handlers
	lidt idt_register(%rip)
	cmp $2, %eax
	je touch
	cmp $3, %eax
	je poison
	cmp $4, %eax
	je interrupts

	TDCALL 1		# VP.INFO
	and $0x3f, %ecx
	REP 1, %rcx
	REP 2, %rdx
	mov %r8d, %r8d
	REP 3, %r8
	TDCALL 0x7f
	REP 4, %rax
	TDCALL 3		# VEINFO.GET, of nothing
	REP 5, %rax
	mov $1, %ecx
	TDCALL 0		# with RAX in the mask
	REP 6, %rax

	TRY mov X, %rax
	REP 10, %r14
	REP 11, %r13
	TDCALL 3
	REP 12, %rax
	ACCEPT X, 0
	REP 13, %rax
	TRY mov X, %rbx
	REP 14, %r14
	REP 15, %rbx
	ACCEPT X, 0
	shr $32, %rax
	REP 16, %rax
	ACCEPT X, 3
	REP 17, %rax
	ACCEPT X + SHARED_BIT, 0
	REP 18, %rax
	ACCEPT X, 1
	REP 19, %rax
	ACCEPT 0, 1
	shr $32, %rax
	REP 20, %rax
	ACCEPT Y, 0		# never touched
	REP 21, %rax
	mov Y, %rbx
	REP 22, %rbx
	movabs $0x1122334455667788, %rbx
	mov %rbx, X
	mov %rbx, X + 4088
	REP 23, %rbx
	mov X, %rcx
	xor %rbx, %rcx
	mov X + 4088, %rdx
	xor %rbx, %rdx
	or %rdx, %rcx
	REP 24, %rcx

	mov $0x40000000, %eax
	TRY cpuid
	REP 30, %r14
	TRY hlt
	REP 31, %r14
	TRY outb %al, $0x80
	REP 32, %r14
	mov $0xc0010010, %ecx
	TRY rdmsr
	REP 33, %r14
	TRY vmcall
	REP 34, %r14
	TRY invd
	REP 35, %r14
	TRY vmxoff
	REP 36, %r14
	mov $0xc0000080, %ecx
	TRY rdmsr
	REP 37, %r14
	movdqu pattern(%rip), %xmm5
	REP 38, %rax
	movq %xmm5, %rax
	REP 39, %rax

	MAPGPA X + SHARED_BIT
	REP 50, %r10
	movabs $0x5152535455565758, %rbx
	mov %rbx, S + X
	REP 51, %rbx		# the host looks, and answers there
	mov S + X, %rcx
	REP 52, %rcx
	MAPGPA X
	REP 53, %r10
	TRY mov X, %rbx
	REP 54, %r14
	ACCEPT X, 0
	REP 55, %rax
	mov X, %rbx
	REP 56, %rbx
	mov Y, %rbx		# another page was not concerned
	REP 57, %rbx
	# Shared and private at once: the host says nothing, so it is KVM who makes the page exit
	TRY mov S + Z, %rbx
	REP 58, %r14
end:
	mov $0x999, %esi
	mov $0x55, %edi
	call report
	jmp .

no_handlers:
	lidt no_idt(%rip)
	mov X, %rax
	jmp .

# A page that was not accepted, with SEPT_VE_DISABLE
touch:	xor %eax, %eax
	REP 60, %rax
	mov X, %rax
	jmp end

poison:
	ACCEPT X, 0
	movabs $0x1122334455667788, %rbx
	mov %rbx, X
	REP 70, %rax		# the host reads
	mov X, %rcx
	xor %rbx, %rcx
	REP 71, %rcx		# the host writes
	TRY mov X, %rcx
	REP 72, %r14
	jmp end

# Waits until \count interrupts have come, for some seconds at most
	.macro WAIT count
	mov $1 << 28, %ecx
	sti
991:	cmpq $\count, arrived(%rip)
	je 992f
	dec %ecx
	jnz 991b
992:	cli
	mov arrived(%rip), %rbx
	.endm

interrupts:
	mov $0x7c00, %ecx	# TDVMCALL of WRMSR, SVR: the APIC is on
	xor %r10, %r10
	mov $32, %r11d
	mov $0x80f, %r12d
	mov $0x1ff, %r13d
	xor %r14, %r14
	TDCALL 0
	REP 80, %r10		# the host sends one in a while
	WAIT 1
	REP 81, %rbx		# the host sends one now
	WAIT 2
	REP 82, %rbx
	jmp end

	.align 16
on_interrupt:
	push %rax
	push %rcx
	push %rdx
	incq arrived(%rip)
	mov $0x80b, %ecx	# EOI
	xor %eax, %eax
	xor %edx, %edx
	wrmsr
	pop %rdx
	pop %rcx
	pop %rax
	iretq

	.align 16
arrived:
	.quad 0, 0
pattern:
	.quad 0x12345678, 0x9abcdef0
	.align 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_register:
	.word gdt_register - gdt - 1
	.long CODE + gdt - start
	.macro GATE target
	.word \target - start + (CODE & 0xffff)
	.word 8
	.byte 0, 0x8e
	.word CODE >> 16
	.long 0, 0
	.endm
	.align 16
idt:	.fill 6 * 16, 1, 0
	GATE on_ud
	.fill 6 * 16, 1, 0
	GATE on_gp
	GATE on_pf
	.fill 3 * 16, 1, 0
	GATE on_mc
	.fill 16, 1, 0
	GATE on_ve
	.fill 43 * 16, 1, 0
	GATE on_interrupt	# 64
idt_end:
no_idt:	.word 0
	.quad 0
idt_register:
	.word idt_end - idt - 1
	.quad CODE + idt - start
	.org 0x2000 - 16
stack_top:
	.fill 16, 1, 0
