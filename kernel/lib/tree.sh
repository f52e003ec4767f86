# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# tree.sh - the git tree build/linux-VERSION and the repository's copy of it
#
# The tree's history is
#
#	pristine (tag)	the source as Debian ships it
#	overlay (tag)	one commit that adds the files of kernel/overlay
#	...		one commit per patch of kernel/patches: the hooks
#
# A file is "new" when the pristine commit does not have it; new files belong
# to kernel/overlay, changes to all others to kernel/patches.
#
# Both sides are compared as text: an overlay (a git tree object) and a series
# (patch files).  The tree's .git/ptshare-applied remembers what both were
# when they were last equal, so that one can tell which side has moved:
#
#	repo <what the repository held>
#	tree <what an export of the tree gave>
#	head <the tree's HEAD>
#
# Source after scripts/lib.sh.  Functions work on the version in $V, set by
# use_version.

PATCHES=$ROOT/kernel/patches/$SERIES
OVERLAY=$ROOT/kernel/overlay

# What git does must not depend on who runs it.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_AUTHOR_NAME='ptshare developers' GIT_AUTHOR_EMAIL=ptshare@localhost
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL

use_version() {
	V=$1
	TREE=$BUILD/linux-$V
	SHORT=build/linux-$V
	APPLIED=$TREE/.git/ptshare-applied
	APPLYING=$TREE/.git/ptshare-applying
}

tgit() {
	git -C "$TREE" "$@"
}

# scratch: a new empty directory under build/, removed when the script ends.
SCRATCH_DIRS=()
scratch() {
	local dir
	mkdir -p "$BUILD"
	dir=$(mktemp -d "$BUILD/tmp.XXXXXX")
	SCRATCH_DIRS+=("$dir")
	SCRATCH=$dir
}

remove_scratch() {
	[ ${#SCRATCH_DIRS[@]} -eq 0 ] || rm -rf "${SCRATCH_DIRS[@]}"
}
trap remove_scratch EXIT

# --- what the repository holds ---------------------------------------------

# repo_overlay: put kernel/overlay into the tree's object store, print the id.
# Files that a .gitignore of the overlay names (build products) are left out.
repo_overlay() {
	local index=$TREE/.git/ptshare-index.$BASHPID id
	if [ -d "$OVERLAY" ]; then
		GIT_INDEX_FILE=$index git --git-dir="$TREE/.git" \
			--work-tree="$OVERLAY" -C "$OVERLAY" add -A .
	fi
	id=$(GIT_INDEX_FILE=$index tgit write-tree)
	rm -f "$index"
	echo "$id"
}

# series_text OVERLAY-ID PATCH-DIR: one word for overlay and series together.
series_text() {
	local sum
	sum=$(cd "$2" 2>/dev/null && find . -maxdepth 1 -name '*.patch' -print0 |
		sort -z | xargs -0r sha256sum | sha256sum | cut -c1-40)
	echo "$1-${sum:-$(sha256sum </dev/null | cut -c1-40)}"
}

repo_text() {
	local id
	id=$(repo_overlay)
	series_text "$id" "$PATCHES"
}

# --- what the tree holds ---------------------------------------------------

# tree_busy: prints the git operation that is under way, if any.
tree_busy() {
	if [ -d "$TREE/.git/rebase-apply" ] && [ -e "$TREE/.git/rebase-apply/applying" ]; then
		echo am
	elif [ -d "$TREE/.git/rebase-apply" ] || [ -d "$TREE/.git/rebase-merge" ]; then
		echo rebase
	elif [ -e "$TREE/.git/CHERRY_PICK_HEAD" ]; then
		echo cherry-pick
	elif [ -e "$TREE/.git/MERGE_HEAD" ]; then
		echo merge
	fi
}

tree_clean() {
	[ -z "$(tgit status --porcelain)" ]
}

# work_tree: the id of the work tree as it is, with files git does not know.
work_tree() {
	local index=$TREE/.git/ptshare-index.$BASHPID id
	cp "$TREE/.git/index" "$index"
	GIT_INDEX_FILE=$index tgit add -A
	id=$(GIT_INDEX_FILE=$index tgit write-tree)
	rm -f "$index"
	echo "$id"
}

# new_files TREE-ISH: the id of a tree with only its new files.
new_files() {
	local index=$TREE/.git/ptshare-index.$BASHPID
	tgit diff-tree -r --no-renames --diff-filter=A pristine "$1" |
		sed -E 's/^:[0-7]+ ([0-7]+) [0-9a-f]+ ([0-9a-f]+) A/\1 \2/' |
		GIT_INDEX_FILE=$index tgit update-index --index-info
	GIT_INDEX_FILE=$index tgit write-tree
	rm -f "$index"
}

# in_pristine PATH...: those that the pristine commit has.
in_pristine() {
	[ $# -eq 0 ] || tgit ls-tree -r --name-only pristine -- "$@"
}

# hook_paths: of the paths on stdin, those of old files.
hook_paths() {
	local -a paths
	mapfile -t paths
	in_pristine "${paths[@]}"
}

# commit_kind COMMIT: hook, overlay, both, empty or removes (an old file).
commit_kind() {
	local -a paths old
	if tgit diff-tree --no-commit-id -r --no-renames --name-status "$1" |
		grep -v '^[AM]' | cut -f2 | hook_paths | grep -q .; then
		echo removes
		return
	fi
	mapfile -t paths < <(tgit diff-tree --no-commit-id -r --no-renames --name-only "$1")
	mapfile -t old < <(in_pristine "${paths[@]}")
	if [ ${#paths[@]} -eq 0 ]; then
		echo empty
	elif [ ${#old[@]} -eq 0 ]; then
		echo overlay
	elif [ ${#old[@]} -eq ${#paths[@]} ]; then
		echo hook
	else
		echo both
	fi
}

# hook_commits: the commits to be exported, oldest first.  Returns 1, with the
# reason on stdout, when the history is not one that can be.
hook_commits() {
	local commit what
	if ! tgit merge-base --is-ancestor pristine HEAD; then
		echo "HEAD of $SHORT does not descend from the tag pristine"
		return 1
	fi
	while read -r commit; do
		what="commit $(tgit log -1 --format='%h ("%s")' "$commit")"
		if tgit rev-parse -q --verify "$commit^2" >/dev/null; then
			echo "$what is a merge: rebase instead"
			return 1
		fi
		case $(commit_kind "$commit") in
		hook) ;;
		overlay | empty) continue ;;
		both)
			echo "$what changes new and existing files: split it (git rebase -i pristine; kernel/overlay and kernel/patches are kept apart)"
			return 1
			;;
		removes)
			echo "$what removes a file of the kernel or changes its type: hooks only edit files"
			return 1
			;;
		esac
		if [[ $(tgit log -1 --format=%s "$commit") =~ ^(fixup|squash|amend)! ]]; then
			echo "$what waits to be squashed: git -C $SHORT rebase -i --autosquash pristine"
			return 1
		fi
		echo "$commit"
	done < <(tgit rev-list --reverse --topo-order pristine..HEAD)
}

# changed_old_files WORK-TREE-ID: old files with changes not committed.
changed_old_files() {
	tgit diff-tree -r --no-renames --name-only HEAD "$1" | hook_paths
}

# One patch file per commit, the same bytes for the same change on any
# machine: no hash of the commit, no git version, full blob ids.
FORMAT_PATCH=(format-patch -q --zero-commit --no-signature -N --full-index
	--no-renames --no-ext-diff --no-textconv --diff-algorithm=myers -U3
	--no-encode-email-headers)

# export_series DIR: write the tree's hooks to DIR/*.patch and print the id of
# its overlay; 1 with the reason on stdout when that cannot be done.
export_series() {
	local dir=$1 id commits commit n=0 dirty
	if [ -n "$(tree_busy)" ]; then
		echo "$SHORT is in the middle of a git $(tree_busy): finish or abort it"
		return 1
	fi
	if ! commits=$(hook_commits); then
		echo "$commits" | tail -n 1
		return 1
	fi
	id=$(work_tree)
	dirty=$(changed_old_files "$id" | tr '\n' ' ')
	if [ -n "$dirty" ]; then
		echo "changes to existing files are not committed in $SHORT: ${dirty% } (git commit -a, or git commit -a --fixup COMMIT and git rebase -i --autosquash pristine)"
		return 1
	fi
	for commit in $commits; do
		tgit "${FORMAT_PATCH[@]}" --start-number=$((++n)) -o "$dir" -1 "$commit" || {
			echo "git format-patch failed in $SHORT"
			return 1
		}
	done
	new_files "$id"
}

# tree_text: what series_text says of the tree; 1 when it cannot be exported.
tree_text() {
	local dir id rc=0
	dir=$(mktemp -d "$BUILD/tmp.XXXXXX")
	id=$(export_series "$dir") && series_text "$id" "$dir" || rc=1
	rm -rf "$dir"
	return $rc
}

# --- which side has moved --------------------------------------------------

# write_applied REPO-TEXT TREE-TEXT
write_applied() {
	printf 'repo %s\ntree %s\nhead %s\n' "$1" "$2" "$(tgit rev-parse HEAD)" \
		>"$APPLIED.new"
	mv "$APPLIED.new" "$APPLIED"
}

read_applied() {
	sed -n "s/^$1 //p" "$APPLIED" 2>/dev/null || true
}

# tree_state: same, repo (only the repository has moved), tree (only the tree
# has), both, or redo (an earlier run was cut short).
tree_state() {
	local repo tree old_repo old_tree
	if [ -e "$APPLYING" ]; then
		echo redo
		return
	fi
	repo=$(repo_text)
	old_repo=$(read_applied repo)
	old_tree=$(read_applied tree)
	if [ -z "$(tree_busy)" ] && [ "$(tgit rev-parse HEAD)" = "$(read_applied head)" ] && tree_clean; then
		tree=$old_tree
	else
		tree=$(tree_text) || tree=changed
	fi
	if [ "$repo" = "$tree" ]; then
		[ "$repo" = "$old_repo" ] || write_applied "$repo" "$tree"
		echo same
	elif [ "$tree" = "$old_tree" ]; then
		[ "$repo" = "$old_repo" ] && echo same || echo repo
	else
		[ "$repo" = "$old_repo" ] && echo tree || echo both
	fi
}

# --- from the repository to the tree ---------------------------------------

# overlay_commit ID: a commit of the pristine tree with the files of overlay
# ID added; the pristine commit itself when there are none.
overlay_commit() {
	local index=$TREE/.git/ptshare-index.$BASHPID clash id date
	if [ -z "$(tgit ls-tree "$1")" ]; then
		tgit rev-parse 'pristine^{commit}'
		return
	fi
	clash=$(tgit ls-tree -r --name-only "$1" | hook_paths | tr '\n' ' ')
	[ -z "$clash" ] ||
		die "Linux $V has files of kernel/overlay itself (changes to them belong in kernel/patches): $clash"
	GIT_INDEX_FILE=$index tgit read-tree pristine
	tgit ls-tree -r "$1" | GIT_INDEX_FILE=$index tgit update-index --index-info
	id=$(GIT_INDEX_FILE=$index tgit write-tree)
	rm -f "$index"
	date=$(tgit log -1 --format=%cI pristine)
	GIT_AUTHOR_DATE=$date GIT_COMMITTER_DATE=$date \
		tgit commit-tree -p pristine -m "ptshare: new files" "$id"
}

# fetch_blobs PATCH...: a three-way merge needs the file that a patch was made
# for.  When that is another point release's, copy it from that tree.
fetch_blobs() {
	local blob other
	[ $# -gt 0 ] || return 0
	sed -n 's/^index \([0-9a-f]\{40\}\)\.\..*/\1/p' "$@" | sort -u |
		while read -r blob; do
			tgit cat-file -e "$blob" 2>/dev/null && continue
			for other in "$BUILD/linux-$SERIES".*/.git; do
				git --git-dir="$other" cat-file -e "$blob" 2>/dev/null || continue
				git --git-dir="$other" cat-file blob "$blob" |
					tgit hash-object -w --stdin >/dev/null
				break
			done
		done
}

# apply_mail DIR PATCH...: git am in work tree DIR.  On failure it leaves the
# operation open and says on stdout which patch and which file.
AM=(am -3 --committer-date-is-author-date --keep-non-patch)
apply_mail() {
	local dir=$1 log next files
	shift
	[ $# -gt 0 ] || return 0
	fetch_blobs "$@"
	log=$(git -C "$dir" "${AM[@]}" "$@" 2>&1) && return
	next=$(git -C "$dir" rev-parse --path-format=absolute --git-path rebase-apply/next)
	next=$(cat "$next" 2>/dev/null || echo 1)
	files=$(sed -n -e 's/^CONFLICT ([^)]*): .* in \(.*\)$/\1/p' \
		-e 's/^error: patch failed: \(.*\):[0-9]*$/\1/p' \
		-e 's/^error: \(.*\): does not exist in index$/\1/p' \
		-e 's/^error: sha1 information is lacking or useless (\(.*\))\.$/\1/p' \
		<<<"$log" | sort -u | xargs)
	[ -n "$files" ] || files=$(sed -n 's/^\(error\|fatal\): //p' <<<"$log" | head -n 1)
	echo "$(basename "${!next}") ($files)"
	return 1
}

# patch_files DIR
patch_files() {
	[ ! -d "$1" ] || find "$1" -maxdepth 1 -name '*.patch' | sort
}

# check_patch PATCH: a patch edits old files and does nothing else.
check_patch() {
	local what
	what=$(tgit apply --summary "$1" 2>&1 | head -n 1)
	[ -z "$what" ] ||
		die "kernel/patches/$SERIES/$(basename "$1") may only edit existing files (new files belong in kernel/overlay):$what"
}

# build_history OVERLAY-ID PATCH-DIR: make the commits, without touching the
# tree's files; sets OVERLAY_COMMIT and HISTORY (the last commit).  When a
# patch does not apply, HISTORY is empty and FAILED says which.
build_history() {
	local dir patch
	local -a patches
	OVERLAY_COMMIT=$(overlay_commit "$1")
	HISTORY=$OVERLAY_COMMIT
	mapfile -t patches < <(patch_files "$2")
	[ ${#patches[@]} -gt 0 ] || return 0
	for patch in "${patches[@]}"; do
		check_patch "$patch"
	done
	# git am needs an index and the files it edits, and no others.
	scratch
	dir=$SCRATCH/am
	tgit worktree prune
	tgit worktree add -q --no-checkout --detach "$dir" "$OVERLAY_COMMIT"
	git -C "$dir" read-tree HEAD
	git -C "$dir" apply --numstat "${patches[@]}" | cut -f3 | sort -u | hook_paths |
		git -C "$dir" checkout-index -q -u --stdin
	if FAILED=$(apply_mail "$dir" "${patches[@]}"); then
		HISTORY=$(git -C "$dir" rev-parse HEAD)
	else
		HISTORY=
	fi
	tgit worktree remove --force "$dir"
}

# move_tree COMMIT: make the tree's files those of COMMIT.  Only files that
# differ are written, so that make rebuilds only what depends on them.
move_tree() {
	echo "$1" >"$APPLYING"
	rm -f "$TREE/.git/index.lock"
	tgit update-index -q --refresh >/dev/null || true
	tgit reset -q --hard "$1"
	tgit clean -q -f -d
	tgit tag -f overlay "$OVERLAY_COMMIT" >/dev/null
}

# apply_repo: bring the tree to what the repository says.
apply_repo() {
	local id repo
	id=$(repo_overlay)
	build_history "$id" "$PATCHES"
	[ -n "$HISTORY" ] ||
		die "kernel/patches does not apply to Linux $V: $FAILED - see 'make refresh VERSION=$V'"
	move_tree "$HISTORY"
	repo=$(series_text "$id" "$PATCHES")
	write_applied "$repo" "$(tree_text)"
	rm -f "$APPLYING"
}
