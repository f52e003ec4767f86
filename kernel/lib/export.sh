# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# export.sh - from the tree to the repository; source after tree.sh

# same_files DIR DIR: the same patches.
same_patches() {
	diff -r -x '.*' "$1" "$2"
}

# prove_export DIR OVERLAY-ID: what was exported gives the tree again.
prove_export() {
	local again want
	build_history "$2" "$1"
	[ -n "$HISTORY" ] || die "the exported series does not apply to Linux $V: $FAILED"
	want=$(work_tree)
	[ "$(tgit rev-parse "$HISTORY^{tree}")" = "$want" ] ||
		die "the exported series gives other files than $SHORT: $(tgit diff --name-only "$HISTORY" "$want" | tr '\n' ' ')"
	scratch
	again=$SCRATCH
	tgit "${FORMAT_PATCH[@]}" -o "$again" "$OVERLAY_COMMIT..$HISTORY"
	same_patches "$1" "$again" >&2 ||
		die "a commit message does not survive git am (see above)"
}

# write_overlay ID: make kernel/overlay that; files that do not differ are not
# written.
write_overlay() {
	local index=$TREE/.git/ptshare-index.$BASHPID old
	old=$(repo_overlay)
	tgit diff-tree -r --no-renames --name-status "$old" "$1" |
		sed 's|^\(.\)\t|   \1 kernel/overlay/|' >&2
	mkdir -p "$OVERLAY"
	GIT_INDEX_FILE=$index git --git-dir="$TREE/.git" --work-tree="$OVERLAY" \
		-C "$OVERLAY" read-tree "$old"
	GIT_INDEX_FILE=$index git --git-dir="$TREE/.git" --work-tree="$OVERLAY" \
		-C "$OVERLAY" update-index -q --refresh
	GIT_INDEX_FILE=$index git --git-dir="$TREE/.git" --work-tree="$OVERLAY" \
		-C "$OVERLAY" read-tree -m -u "$old" "$1"
	rm -f "$index"
	# git removes a directory with its last file.
	mkdir -p "$OVERLAY"
}

# write_patches DIR
write_patches() {
	local patch name
	mkdir -p "$PATCHES"
	for patch in $(patch_files "$1"); do
		name=$(basename "$patch")
		cmp -s "$patch" "$PATCHES/$name" && continue
		[ -e "$PATCHES/$name" ] && echo "   M kernel/patches/$SERIES/$name" >&2 ||
			echo "   A kernel/patches/$SERIES/$name" >&2
		cp "$patch" "$PATCHES/$name.new"
		mv "$PATCHES/$name.new" "$PATCHES/$name"
	done
	for patch in $(patch_files "$PATCHES"); do
		name=$(basename "$patch")
		[ ! -e "$1/$name" ] || continue
		echo "   D kernel/patches/$SERIES/$name" >&2
		rm "$patch"
	done
}

# export_tree: the whole export.
export_tree() {
	local dir id text
	scratch
	dir=$SCRATCH
	id=$(export_series "$dir") || die "$id"
	prove_export "$dir" "$id"
	write_overlay "$id"
	write_patches "$dir"
	# Same files, so only the index and the branch move.
	tgit reset -q "$HISTORY"
	tgit tag -f overlay "$OVERLAY_COMMIT" >/dev/null
	text=$(series_text "$id" "$dir")
	write_applied "$text" "$text"
	step "exported $(tgit ls-tree -r --name-only "$id" | wc -l) new files and $(patch_files "$dir" | wc -l) patches from $SHORT"
}
