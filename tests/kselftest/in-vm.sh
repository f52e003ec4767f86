#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/kselftest/in-vm.sh - run selftests inside the VM and print TAP
#
# Usage: tests/kselftest/in-vm.sh FLAVOUR LIST
#
# LIST is one that build.sh completed, by the name it has in build/kselftest/.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

# What the tests expect of the machine (see selftests/mm/run_vmtests.sh): huge
# pages, 256 MB of them at once, and swap.
set_up() {
	echo 160 >/proc/sys/vm/nr_hugepages
	echo 1 >/proc/sys/vm/unprivileged_userfaultfd
	echo 512M >/sys/block/zram0/disksize
	mkswap /dev/zram0 >/dev/null
	swapon /dev/zram0
}

# Kernels that check everything are slow.
slowness() {
	case $1 in
	debug) echo 8 ;;
	*) echo 1 ;;
	esac
}

[ $# = 2 ] || die "usage: tests/kselftest/in-vm.sh FLAVOUR LIST"
set_up
exec "$ROOT/tests/kselftest/run-list" "$BUILD/kselftest" \
	"$BUILD/kselftest/$(basename "$2")" "$(slowness "$1")"
