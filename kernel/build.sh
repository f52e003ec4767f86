#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build.sh - build a kernel and print the path of its bzImage
#
# Usage: kernel/build.sh [--flavour FLAVOUR] [--version VERSION]
#
#	plain	as users run it
#	debug	with what catches memory-management bugs
#	stock	the configuration of plain, the source as Debian ships it
#	off	the source of plain with the features configured out
#	plain-jump, stock-jump
#		with jump labels, for benchmarks that count instructions
#
# Objects are in build/obj-FLAVOUR for the default version, else in
# build/obj-FLAVOUR-VERSION; both are links into the source directory.
# In the environment, PTSHARE_KERNEL=VERSION stands for --version, and JOBS=N
# limits the compilers that run at a time.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"
. "$ROOT/kernel/lib/kbuild.sh"

# made_of SOURCE OBJ FLAVOUR: all that the kernel depends on, in one line; empty
# when the source has changes that are not committed.
made_of() {
	[ "$1" != "$TREE" ] || tree_clean || return 0
	echo "$(tgit rev-parse HEAD) $(config_stamp "$3") $(sha256sum <"$2/.config")"
}

# finish NAME OBJ IMAGE: the end of main.  Whoever edits this file while it
# runs does no harm: nothing more is read.
finish() {
	ln -sfn "$(realpath --relative-to="$BUILD" "$2")" "$BUILD/$1"
	echo "$BUILD/$1/$3"
	exit 0
}

main() {
	local flavour=plain version='' default source name obj image log localversion built from
	local -a args

	while [ $# -gt 0 ]; do
		[ $# -ge 2 ] || die "$1 needs a value"
		case $1 in
		--flavour) flavour=$2 ;;
		--version) version=$2 ;;
		*) die "usage: kernel/build.sh [--flavour FLAVOUR] [--version VERSION]" ;;
		esac
		shift 2
	done
	case $flavour in
	plain) localversion=-ptshare ;;
	debug) localversion=-ptshare-debug ;;
	# As long as each other: these two are compared.
	stock) localversion=-stock ;;
	off) localversion=-unset ;;
	plain-jump) localversion=-ptshare-jump ;;
	stock-jump) localversion=-stock-jump ;;
	*) die "FLAVOUR=$flavour: there are plain, debug, stock, off, plain-jump and stock-jump" ;;
	esac
	need_tools git ccache gcc make flex bison bc perl xz

	# An explicit version may still be the default one.
	default=$(PTSHARE_KERNEL='' kernel_version)
	use_version "${version:-${PTSHARE_KERNEL:-$default}}"
	check_version "$V"
	args=(--version "$V")
	source=$TREE
	if [[ $flavour = stock* ]]; then
		args+=(--stock)
		source=$TREE-stock
	fi
	"$ROOT/kernel/prepare.sh" "${args[@]}"
	[ "$V" != "$default" ] || ln -sfn "linux-$V" "$BUILD/linux"

	name=obj-$flavour
	[ "$V" = "$default" ] || name=obj-$flavour-$V
	obj=$source/.obj-$flavour
	image=arch/x86/boot/bzImage
	log=$BUILD/logs/$name.log
	lock "$name"
	mkdir -p "$obj" "$BUILD/logs"
	[ -e "$obj/$image" ] || need_space 1500
	# kbuild takes seconds to find that it has nothing to do.
	built=$obj/.ptshare-built
	if [ -s "$built" ] && [ -e "$obj/$image" ] &&
		[ "$(cat "$built")" = "$(made_of "$source" "$obj" "$flavour")" ]; then
		finish "$name" "$obj" "$image"
	fi
	rm -f "$built"
	: >"$log"
	configure "$source" "$obj" "$flavour" "$log"
	# Before the build: what is edited while it runs may not be in it.
	from=$(made_of "$source" "$obj" "$flavour")
	compile "kernel $V $flavour" "$log" "$source" "$obj" -j"$JOBS" LOCALVERSION="$localversion" bzImage
	[ -z "$from" ] || echo "$from" >"$built"
	finish "$name" "$obj" "$image"
}

main "$@"
