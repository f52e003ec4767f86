#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mark-tested.sh - record in kernel/tested that a point release passes
#
# Usage: kernel/mark-tested.sh pass|record
#
#	pass	called by 'make test' when all of it has passed: notes which
#		source, overlay, patches and configuration that was
#	record	adds the version to kernel/tested, if such a note exists and
#		nothing has changed since

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"

use_version "$(kernel_version)"
[ -e "$TREE/.git/ptshare-source" ] || die "there is no $SHORT: run 'make test VERSION=$V' first"
read -r package sha256 < <(tr '\n' ' ' <"$TREE/.git/ptshare-source"; echo)
note=$BUILD/passed-$V
now="$package $(repo_text) $(cat "$ROOT"/kernel/config/* | sha256sum | cut -c1-40)"

case ${1:-} in
pass)
	[ "$(tree_state)" = same ] || exit 0
	echo "$now" >"$note"
	;;
record)
	[ "$(cat "$note" 2>/dev/null)" = "$now" ] ||
		die "Linux $V has not passed as it is now: run 'make test VERSION=$V' first"
	file=$ROOT/kernel/tested
	{
		grep '^#' "$file" || true
		{
			grep -v -e '^#' -e "^$package " "$file" || true
			echo "$package $sha256"
		} | sort -rV
	} >"$file.new"
	mv "$file.new" "$file"
	step "kernel/tested: $package"
	;;
*) die "usage: kernel/mark-tested.sh pass|record" ;;
esac
