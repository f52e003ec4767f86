# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# lib.sh - what every bash script of this repository starts with
#
# Usage: . "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
#
# Data goes to stdout, everything else to stderr.  A result is built under a
# temporary name and renamed when it is complete, so that a step that was cut
# short is seen as not done.

set -euo pipefail
shopt -s inherit_errexit

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=$ROOT/build
SERIES=6.12
SOURCE_PACKAGE=linux-source-$SERIES

# Same messages and the same sort order everywhere.
export LC_ALL=C.UTF-8

# Called from make: its job server and its command-line variables are not
# meant for kbuild.  Called from a git hook: its repository is not ours.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_OBJECT_DIRECTORY \
	GIT_COMMON_DIR GIT_ALTERNATE_OBJECT_DIRECTORIES

die() {
	echo "error: $*" >&2
	exit 1
}

step() {
	echo ">> $*" >&2
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# need_tools CMD...: stop with one line when a program is missing.
need_tools() {
	local cmd missing=()
	for cmd; do
		have "$cmd" || missing+=("$cmd")
	done
	[ ${#missing[@]} -eq 0 ] ||
		die "not installed: ${missing[*]} - run 'make setup'"
}

# need_space MIB: stop when build/ has less room than that.
need_space() {
	local avail
	mkdir -p "$BUILD"
	avail=$(df --output=avail -BM "$BUILD" | tail -n 1 | tr -dc 0-9)
	[ "$avail" -ge "$1" ] ||
		die "no space: $BUILD needs $1 MiB free and has $avail MiB"
}

# lock NAME: one process at a time; held until the script ends.
lock() {
	local fd
	mkdir -p "$BUILD"
	exec {fd}>"$BUILD/.lock-$1"
	flock -n "$fd" && return
	step "waiting for another run to finish ($1)"
	flock "$fd"
}

# as_root CMD...: run as root, or return 1 when there is no way to.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo && sudo -n true 2>/dev/null; then
		sudo -n "$@"
	elif have sudo && [ -t 0 ] && [ -t 2 ]; then
		sudo "$@"
	else
		return 1
	fi
}

# --- kernel versions -------------------------------------------------------
#
# A version is an upstream point release such as 6.12.117; Debian's package of
# it has a longer one such as 6.12.117-1~deb12u1 ("package version").  Lists
# are newest first.

upstream_version() {
	echo "${1%-*}"
}

# Package versions that kernel/tested lists.
tested_packages() {
	[ -e "$ROOT/kernel/tested" ] || return 0
	sed -n 's/^\([0-9][^ ]*\) .*/\1/p' "$ROOT/kernel/tested" | sort -rV
}

# Package versions that apt can download.
offered_packages() {
	have apt-cache || return 0
	apt-cache madison "$SOURCE_PACKAGE" 2>/dev/null |
		awk -F'|' '{ gsub(/ /, "", $2); print $2 }' | sort -ruV
}

# refresh_lists: have apt fetch its package lists, if this user can.
refresh_lists() {
	step "refreshing apt's package lists"
	as_root apt-get -qq update >/dev/null 2>&1
}

# Package versions that are unpacked under build/.
held_packages() {
	local file
	for file in "$BUILD/linux-$SERIES".*/.git/ptshare-source; do
		[ ! -e "$file" ] || head -n 1 "$file"
	done | sort -rV
}

# Fixed list as one line of upstream versions, for messages.
version_list() {
	local package list=()
	for package; do
		list+=("$(upstream_version "$package")")
	done
	echo "${list[*]:-none}"
}

check_version() {
	[[ $1 =~ ^${SERIES//./\\.}\.[0-9]+$ ]] ||
		die "VERSION=$1: want a point release of Linux $SERIES such as $SERIES.117"
}

# kernel_version: the version to work on.  $PTSHARE_KERNEL (make VERSION=...)
# when that is set; else the newest in kernel/tested that can be had; else, with a notice, the newest
# that can be had at all.
kernel_version() {
	local -a tested held offered=()
	local package other

	if [ -n "${PTSHARE_KERNEL:-}" ]; then
		check_version "$PTSHARE_KERNEL"
		echo "$PTSHARE_KERNEL"
		return
	fi
	mapfile -t tested < <(tested_packages)
	mapfile -t held < <(held_packages)
	# The usual case needs no slow question to apt.
	if [ -z "${tested[0]:-}" ] || [ "${tested[0]}" != "${held[0]:-}" ]; then
		mapfile -t offered < <(offered_packages)
	fi
	for package in "${tested[@]}"; do
		for other in "${held[@]}" "${offered[@]}"; do
			[ "$package" = "$other" ] || continue
			upstream_version "$package"
			return
		done
	done
	# Another Debian release packages the same point release.
	for package in "${tested[@]}"; do
		for other in "${held[@]}" "${offered[@]}"; do
			[ "$(upstream_version "$package")" = "$(upstream_version "$other")" ] ||
				continue
			upstream_version "$package"
			return
		done
	done
	package=$(printf '%s\n' "${offered[@]}" "${held[@]}" | sort -rV | head -n 1)
	if [ -z "$package" ] && refresh_lists; then
		package=$(offered_packages | head -n 1)
	fi
	[ -n "$package" ] ||
		die "apt offers no $SOURCE_PACKAGE: run 'apt-get update' as root" \
			"(Debian 12 has it in bookworm-security, Debian 13 in trixie)"
	echo "notice: Linux $(upstream_version "$package") is not in kernel/tested" >&2
	upstream_version "$package"
}
