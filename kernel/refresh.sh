#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# refresh.sh - bring the patches to another point release
#
# Usage: kernel/refresh.sh VERSION
#
# Applies the series to that version, with three-way merges where lines have
# moved, and writes the patches back.  At a conflict it stops in the tree:
# resolve it there, then run this again.  To a release older than the default
# the series only has to apply: nothing is written.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"
. "$ROOT/kernel/lib/export.sh"

older() {
	[ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# merge_here: git am in the tree itself, so that a conflict can be resolved.
merge_here() {
	local id start
	local -a patches
	id=$(repo_overlay)
	OVERLAY_COMMIT=$(overlay_commit "$id")
	start=$OVERLAY_COMMIT
	move_tree "$start"
	write_applied "$(repo_text)" unfinished
	echo "$start" >"$REFRESHING"
	rm -f "$APPLYING"
	mapfile -t patches < <(patch_files "$PATCHES")
	FAILED=$(apply_mail "$TREE" "${patches[@]}") && return
	cat >&2 <<-END
		conflict: $FAILED
		  in $SHORT: edit the file (git diff shows the conflict), git add it, then
		  git am --continue; a patch that is not needed any more: git am --skip;
		  when all are done: make refresh VERSION=$V
		  to give up: git am --abort
	END
	exit 1
}

main() {
	local default id
	local -a offered

	mapfile -t offered < <(offered_packages)
	[ $# = 1 ] || die "usage: make refresh VERSION=$SERIES.N; apt offers $(version_list "${offered[@]}")"
	check_version "$1"
	need_tools git
	default=$(PTSHARE_KERNEL='' kernel_version)
	use_version "$1"
	REFRESHING=$TREE/.git/ptshare-refreshing

	# The three-way merge needs the files that the patches were made for.
	[ -z "$(patch_files "$PATCHES")" ] ||
		"$ROOT/kernel/prepare.sh" --pristine --version "$default"
	"$ROOT/kernel/prepare.sh" --pristine --version "$V"
	lock prepare

	if [ -e "$REFRESHING" ]; then
		[ -z "$(tree_busy)" ] ||
			die "$SHORT is in the middle of a git $(tree_busy): finish it (git am --continue) or give up (git am --abort)"
		if [ "$(tgit rev-parse HEAD)" = "$(cat "$REFRESHING")" ]; then
			step "the last refresh was given up: starting again"
			rm -f "$REFRESHING"
			merge_here
		fi
	else
		case $(tree_state) in
		tree | both) die "$SHORT has changes that are not exported: run 'make export-hooks VERSION=$V', or drop them with 'kernel/prepare.sh --discard --version $V'" ;;
		esac
		step "applying $(patch_files "$PATCHES" | wc -l) patches to Linux $V"
		id=$(repo_overlay)
		build_history "$id" "$PATCHES"
		if [ -n "$HISTORY" ]; then
			apply_repo
		elif older "$V" "$default"; then
			die "the series does not apply to Linux $V: $FAILED (older than $default, for which it is made: leave $V out of kernel/tested)"
		else
			merge_here
		fi
	fi

	if older "$V" "$default"; then
		step "the series applies; kernel/patches stays as it is for $default"
	else
		export_tree
	fi
	rm -f "$REFRESHING"
	step "next: make test VERSION=$V, then make mark-tested VERSION=$V"
	# Whoever edits this file while it runs does no harm: nothing more is read.
	exit 0
}

main "$@"
