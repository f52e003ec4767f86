#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/kselftest/build.sh - build the kernel's selftests that a list names
#
# Usage: tests/kselftest/build.sh LIST
#
# Builds from the kernel's tree, but not in it.  A line "OURS" of the list stands
# for all tests of our own (kernel/overlay/tools/testing/selftests/).  Leaves
# the programs in build/kselftest/DIRECTORY/, scripts (*.sh) too, and the complete
# list, which is what in-vm.sh runs, in build/kselftest/ under the name of LIST.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

OUT=$BUILD/kselftest
OURS=tools/testing/selftests

# quietly LOG CMD...: run it; show its output only when it fails.
quietly() {
	local log=$OUT/${1//\//-}.log
	shift
	"$@" >"$log" 2>&1 && return
	tail -n 20 "$log" >&2
	die "cannot build the selftests, see ${log#"$ROOT"/}"
}

# make_in DIRECTORY ARGS...: make in a selftest's directory.  mm/khugepaged.c of 6.12
# uses KSFT_SKIP and lacks the header that defines it.
make_in() {
	local dir=$1
	shift
	mkdir -p "$OUT/$dir"
	make -s -j"$(nproc)" -C "$TREE/$OURS/$dir" OUTPUT="$OUT/$dir" \
		KHDR_INCLUDES="-isystem $OUT/headers/usr/include" EXTRA_CFLAGS=-DKSFT_SKIP=4 "$@"
}

# The directories and programs that the list names, and nothing else of it.
listed() {
	sed '/^[[:space:]]*\(#\|$\)/d; /^OURS$/d' "$1"
}

build_listed() {
	local dir programs
	for dir in $(listed "$1" | cut -d' ' -f1 | sort -u); do
		mapfile -t programs < <(listed "$1" | awk -v dir="$dir" -v out="$OUT" \
			'$1 == dir && $2 !~ /\.sh$/ { print out "/" dir "/" $2 }' | sort -u)
		quietly "$dir" make_in "$dir" "${programs[@]}"
		listed "$1" | awk -v dir="$dir" '$1 == dir && $2 ~ /\.sh$/ { print $2 }' |
			sort -u | while read -r script; do
			cp -p "$TREE/$OURS/$dir/$script" "$OUT/$dir/"
		done
	done
}

# Builds our own directories; prints a line of the list for each of their tests,
# but for those that some list names.
build_ours() {
	local dir program
	for dir in "$ROOT/kernel/overlay/$OURS"/*/; do
		[ -d "$dir" ] || continue
		dir=$(basename "$dir")
		quietly "$dir" make_in "$dir" all
		make_in "$dir" COLLECTION="$dir" emit_tests | while IFS=: read -r _ program; do
			! grep -qs "^$dir $program " "$ROOT"/tests/kselftest/*.list ||
				continue
			echo "$dir $program 90 -"
		done
	done
}

# What was built from another tree must not be taken for up to date.
start_over() {
	local version=$1
	[ "$(cat "$OUT/version" 2>/dev/null)" = "$version" ] && return
	rm -rf "$OUT"
	mkdir -p "$OUT/headers"
	echo "$version" >"$OUT/version"
}

main() {
	local list version
	[ $# = 1 ] || die "usage: tests/kselftest/build.sh LIST"
	[ -r "$1" ] || die "cannot read $1"
	version=$(kernel_version)
	TREE=$BUILD/linux-$version
	[ -d "$TREE/$OURS" ] || die "no kernel tree build/linux-$version: run 'make kernel'"
	start_over "$version"
	list=$OUT/$(basename "$1")
	quietly headers make -s -C "$TREE" O="$OUT/headers" headers
	build_listed "$1"
	listed "$1" >"$list.new"
	! grep -qx OURS "$1" || build_ours >>"$list.new"
	mv "$list.new" "$list"
}

main "$@"
