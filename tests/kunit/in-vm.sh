#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/kunit/in-vm.sh - print the results of the kernel's unit tests
#
# KUnit ran them while the kernel booted (with kunit.enable=1) and keeps the
# KTAP of each suite in debugfs.

results=/sys/kernel/debug/kunit

for suite in "$results"/*/results; do
	if [ ! -e "$suite" ]; then
		echo "error: no results in $results: kernel without KUnit suites?" >&2
		exit 1
	fi
	cat "$suite"
done
