# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034
#
# The emulated machines of the tests, for the scripts here. Before they use it they set $qemu, or leave it empty for the one
# that scripts/build-emulated-hosts builds, and define die().

[[ $qemu ]] || qemu=$here/../../target/emulated-hosts/qemu-system-x86_64
[[ -x $qemu ]] || die "$qemu: no such QEMU; scripts/build-emulated-hosts makes one"

snp_host=(-cpu 'EPYC-Milan,-erms,-fsrm,hypervisor=off,snp-host=on' -device 'amd-iommu,intremap=on' -device amd-psp)
tdx_host=(-cpu 'SapphireRapids,-erms,-fsrm,hypervisor=off,check=off,tdx-host=on')

# machine SECONDS OPTION ...: runs to its end, or for so long. Its console is $work/console, the second serial port
# $work/out, and what QEMU says $work/qemu.
machine() {
	local seconds=$1 firmware=()
	shift
	# Firmware that a QEMU which was not installed keeps beside it.
	[[ ! -d ${qemu%/*}/pc-bios ]] || firmware=(-L "${qemu%/*}/pc-bios")
	: >"$work/out"
	: >"$work/console"
	timeout --kill-after=5 "$seconds" "$qemu" "${firmware[@]}" -accel tcg,thread=single -machine q35 \
		-nodefaults -no-user-config -display none -nic none -no-reboot "$@" \
		-serial "file:$work/console" -serial "file:$work/out" 2>"$work/qemu" || true
}

# initramfs DIRECTORY FILE
initramfs() {
	(cd -- "$1" && find . | cpio --create --format=newc --quiet) >"$2"
}

# How a kernel is booted there; parameters of the test's own follow.
kernel_parameters='console=ttyS0 quiet panic=-1 no_timer_check mitigations=off'
