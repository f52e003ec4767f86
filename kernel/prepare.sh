#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# prepare.sh - unpack a kernel and bring its tree to what the repository says
#
# Usage: kernel/prepare.sh [--version VERSION] [--stock] [--discard] [--pristine]
#
#	--stock		only the source as Debian ships it, as build/linux-VERSION-stock
#	--discard	drop changes made in the tree and not exported
#	--pristine	unpack, but do not apply the overlay and the patches
#
# The tree is the place to work on the kernel: its changes are kept, and the
# repository's are applied only when the tree has none of its own.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"

# find_package VERSION: the package version to take it from.
find_package() {
	local package
	local -a offered
	mapfile -t offered < <(offered_packages)
	for package in "${offered[@]}" $(downloaded_packages); do
		[ "$(upstream_version "$package")" = "$1" ] || continue
		echo "$package"
		return
	done
	die "apt offers no $SOURCE_PACKAGE $1; it has: $(version_list "${offered[@]}")"
}

downloaded_packages() {
	local file
	for file in "$BUILD/dl/${SOURCE_PACKAGE}_"*.tar.xz; do
		[ ! -e "$file" ] || basename "${file#*_}" .tar.xz
	done | sort -rV
}

# download PACKAGE-VERSION: the .deb, to $SCRATCH.
download() {
	# Root's apt would otherwise complain that its own user cannot write here.
	(cd "$SCRATCH" && apt-get -qq -o APT::Sandbox::User=root \
		download "$SOURCE_PACKAGE=$1") >"$SCRATCH/log" 2>&1
}

# fetch PACKAGE-VERSION: put the tarball into build/dl.
fetch() {
	local package=$1 ball="$BUILD/dl/${SOURCE_PACKAGE}_$1.tar.xz"
	local installed=/usr/src/$SOURCE_PACKAGE.tar.xz have_version why
	[ ! -e "$ball" ] || return 0
	need_space 600
	mkdir -p "$BUILD/dl"
	scratch
	step "downloading $SOURCE_PACKAGE $package (150 MB)"
	if download "$package" || { refresh_lists && download "$package"; }; then
		dpkg-deb --fsys-tarfile "$SCRATCH"/*.deb |
			tar -xO "./usr/src/$SOURCE_PACKAGE.tar.xz" >"$SCRATCH/tar.xz"
		mv "$SCRATCH/tar.xz" "$ball"
		return
	fi
	have_version=$(dpkg-query -W -f='${Version}' "$SOURCE_PACKAGE" 2>/dev/null || true)
	if [ "$have_version" = "$package" ] && [ -e "$installed" ]; then
		step "no download: taking $installed"
		cp "$installed" "$SCRATCH/tar.xz"
		mv "$SCRATCH/tar.xz" "$ball"
		return
	fi
	why=$(sed -n 's/^E: //p' "$SCRATCH/log" | head -n 1)
	die "cannot download $SOURCE_PACKAGE $package: ${why:-apt-get failed} (is the network up? are apt's package lists old?)"
}

# verify PACKAGE-VERSION: a version in kernel/tested has a known checksum.
verify() {
	local ball="$BUILD/dl/${SOURCE_PACKAGE}_$1.tar.xz" want
	SHA256=$(sha256sum "$ball" | cut -d' ' -f1)
	want=$(awk -v p="$1" '$1 == p { print $2 }' "$ROOT/kernel/tested" 2>/dev/null || true)
	[ -z "$want" ] || [ "$want" = "$SHA256" ] || {
		rm -f "$ball"
		die "$SOURCE_PACKAGE $1 does not have the sha256 in kernel/tested (removed it; run again to download it again)"
	}
}

# git_tree DIR PACKAGE-VERSION: make the unpacked source a git repository.
git_tree() {
	local dir=$1 date
	date=$(stat -c %Y "$dir/Makefile")
	git init -q -b ptshare "$dir"
	git -C "$dir" config user.name "$GIT_AUTHOR_NAME"
	git -C "$dir" config user.email "$GIT_AUTHOR_EMAIL"
	git -C "$dir" config core.quotePath false
	git -C "$dir" config core.untrackedCache true
	git -C "$dir" config gc.auto 0
	echo '/.obj-*' >>"$dir/.git/info/exclude"
	# Debian's .gitignore hides all files but debian/ and, unlike the
	# kernel's, .gitignore files: our new ones must be seen.
	sed -i '/^# Debian packaging: ignore everything/,$d' "$dir/.gitignore"
	printf '!%s\n' .gitignore .kunitconfig >>"$dir/.gitignore"
	[ -z "$(git -C "$dir" check-ignore mm/new-file.c mm/.gitignore)" ] ||
		die "the .gitignore of Linux $V hides new files: kernel/prepare.sh must learn why"
	# With this threshold git streams all files into one pack instead of
	# making 86000 small files.
	git -C "$dir" -c core.bigFileThreshold=1 -c core.compression=1 add -A -f
	GIT_AUTHOR_DATE="@$date +0000" GIT_COMMITTER_DATE="@$date +0000" \
		git -C "$dir" commit -q -m "Linux $V (Debian $2)"
	git -C "$dir" tag pristine
	git -C "$dir" tag overlay
	echo "$2" >"$dir/.git/ptshare-source"
	echo "$SHA256" >>"$dir/.git/ptshare-source"
	# What apply sees: a tree without changes of its own.
	printf 'repo none\ntree %s\nhead %s\n' \
		"$(series_text "$(git -C "$dir" mktree </dev/null)" /nonexistent)" \
		"$(git -C "$dir" rev-parse HEAD)" >"$dir/.git/ptshare-applied"
}

# unpack: make the tree, under another name until it is complete.
unpack() {
	local package tmp=$BUILD/tmp.linux-$V
	rm -rf "$tmp"
	if [ -e "$TREE" ]; then
		git -C "$TREE" rev-parse -q --verify 'pristine^{commit}' >/dev/null 2>&1 &&
			[ -e "$TREE/.git/ptshare-source" ] && return
		die "$SHORT is not a tree of this project: move it away"
	fi
	package=$(find_package "$V")
	fetch "$package"
	verify "$package"
	need_space 2500
	step "unpacking Linux $V (Debian $package)"
	mkdir -p "$tmp"
	tar -xJf "$BUILD/dl/${SOURCE_PACKAGE}_$package.tar.xz" -C "$tmp" --strip-components=1 || {
		rm -rf "$tmp"
		die "cannot unpack build/dl/${SOURCE_PACKAGE}_$package.tar.xz (no space? if it is damaged, remove it)"
	}
	step "making it a git tree (a minute, once)"
	git_tree "$tmp" "$package"
	mv "$tmp" "$TREE"
}

# stock: the pristine source once more, for the kernel to compare with.
stock() {
	local dir=$TREE-stock tmp=$BUILD/tmp.stock-$V
	rm -rf "$tmp"
	[ ! -d "$dir" ] || return 0
	need_space 2000
	step "unpacking $SHORT-stock"
	mkdir -p "$tmp"
	tgit archive pristine | tar -x -C "$tmp"
	mv "$tmp" "$dir"
}

# apply: bring the tree up to date, or say why it is left alone.
apply() {
	case $(tree_state) in
	same) ;;
	redo)
		step "applying the overlay and the patches (an earlier run was cut short)"
		apply_repo
		;;
	repo)
		step "applying the overlay and $(patch_files "$PATCHES" | wc -l) patches to $SHORT"
		apply_repo
		;;
	tree)
		step "$SHORT has changes that are not exported yet; using it as it is"
		;;
	both)
		die "the repository and $SHORT have both changed: 'make export-hooks' keeps the tree's changes, 'kernel/prepare.sh --discard --version $V' drops them"
		;;
	esac
}

discard() {
	local busy
	busy=$(tree_busy)
	[ -z "$busy" ] || tgit "$busy" --abort
	step "dropping what $SHORT has and the repository has not"
	apply_repo
}

main() {
	local version='' what=apply

	while [ $# -gt 0 ]; do
		case $1 in
		--version)
			[ $# -ge 2 ] || die "--version needs a version"
			version=$2
			shift
			;;
		--stock | --discard | --pristine) what=${1#--} ;;
		*) die "usage: kernel/prepare.sh [--version VERSION] [--stock | --discard | --pristine]" ;;
		esac
		shift
	done

	[ "$(uname -m)" = x86_64 ] || die "kernels are built on x86-64 only, this is $(uname -m)"
	[[ $ROOT != *[[:space:]:]* ]] || die "kbuild cannot work below a path with blanks or colons: $ROOT"
	need_tools git xz tar sha256sum
	if [ -n "$version" ]; then
		check_version "$version"
	else
		version=$(kernel_version)
	fi
	use_version "$version"
	lock prepare
	find "$BUILD" -maxdepth 1 -name 'tmp.*' -mtime +1 -exec rm -rf {} +
	unpack
	case $what in
	pristine) ;;
	stock) stock ;;
	apply) apply ;;
	discard) discard ;;
	esac
	# Whoever edits this file while it runs does no harm: nothing more is read.
	exit 0
}

main "$@"
