#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# export-hooks.sh - write the work done in the kernel tree to the repository
#
# Usage: kernel/export-hooks.sh [--version VERSION]
#
# New files of the tree, committed or not, go to kernel/overlay; commits that
# change existing files to kernel/patches.  The tree's history is then made
# again from just these, which proves that nothing is missing and leaves the
# tree as any other clone will make it.  No file's date changes.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"
. "$ROOT/kernel/lib/export.sh"

version=''
case ${1:-} in
'') ;;
--version) version=${2:?--version needs a version} ;;
*) die "usage: kernel/export-hooks.sh [--version VERSION]" ;;
esac
need_tools git
use_version "${version:-$(kernel_version)}"
[ -e "$TREE/.git/ptshare-source" ] ||
	die "there is no $SHORT to export: run 'make kernel'"
lock prepare
case $(tree_state) in
redo) die "applying to $SHORT was cut short: run 'make kernel' first" ;;
repo) die "the repository is newer than $SHORT, which has no changes: run 'make kernel' first" ;;
both)
	# What is overwritten must be recoverable.
	[ -z "$(git -C "$ROOT" status --porcelain kernel/overlay kernel/patches)" ] ||
		die "kernel/overlay or kernel/patches have uncommitted changes that $SHORT lacks: commit them first, then compare after the export with git diff"
	step "note: the repository's own changes are overwritten; compare with git diff"
	;;
esac
export_tree
