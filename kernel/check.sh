#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check.sh - is what the repository holds in order?
#
# Usage: kernel/check.sh [--sync | --exported | --full] [--version VERSION]
#
#	--sync	only: the overlay and the patches equal the kernel tree (seconds)
#	--exported
#		only: no kernel tree has changes that the repository lacks
#	--full	also: the kernel built at each commit, and with the features
#		configured out compared with the stock kernel (an hour and more)
#
# Runs all checks, then says which have failed.  That a patch only edits
# existing files and an overlay file is a new one is not checked here: what
# applies them (lib/tree.sh) refuses anything else.
#
# shellcheck disable=SC2317 # the checks are called by name

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"
. "$ROOT/kernel/lib/kbuild.sh"

# --- the repository's scripts and texts ------------------------------------

# our_files: what git knows or would add, outside the parts that have their
# own checks.
our_files() {
	git -C "$ROOT" ls-files -co --exclude-standard | sort -u | while read -r file; do
		[ ! -f "$ROOT/$file" ] || echo "$file"
	done
}

# scripts_of WORD SUFFIX: files with WORD as the first line's interpreter or
# with that suffix.
scripts_of() {
	local file
	our_files | while read -r file; do
		if [[ $file == *."$2" ]] ||
			head -n 1 "$ROOT/$file" | grep -aqE "^#!.*[/ ]$1[0-9.]*( |\$)"; then
			echo "$file"
		fi
	done
}

check_shell() {
	local -a files
	mapfile -t files < <(scripts_of '(ba)?sh' sh)
	# Shell in the overlay is the kernel's: checkpatch's business.
	(cd "$ROOT" && printf '%s\n' "${files[@]}" | grep -v '^kernel/overlay/' |
		xargs -r shellcheck -x)
}

check_python() {
	local -a files
	mapfile -t files < <(scripts_of python py)
	[ ${#files[@]} -eq 0 ] || (cd "$ROOT" && python3 - "${files[@]}") <<-'END'
		import sys
		for name in sys.argv[1:]:
		    with open(name, encoding="utf-8") as file:
		        compile(file.read(), name, "exec")
	END
}

check_spelling() {
	local -a files
	mapfile -t files < <(our_files | grep -E '(\.(md|rst|txt|[1-8]|sh|py|c|h)|/setup|/run|Makefile|Kconfig)$' || true)
	[ ${#files[@]} -eq 0 ] || (cd "$ROOT" && codespell -q 3 -L damon "${files[@]}")
}

# --- the tree, the overlay and the patches ---------------------------------

check_sync() {
	case $(tree_state) in
	same) ;;
	tree) echo "$SHORT has changes that are not exported: run 'make export-hooks'" && return 1 ;;
	repo) echo "$SHORT lacks changes of the repository: run 'make kernel'" && return 1 ;;
	both) echo "the repository and $SHORT have both changed: run 'make kernel' for what to do" && return 1 ;;
	redo) echo "applying to $SHORT was cut short: run 'make kernel'" && return 1 ;;
	esac
}

# On the version that the patches are made for (the newest in kernel/tested,
# by this Debian), an export changes no byte.
check_exported() {
	local -a tested
	mapfile -t tested < <(tested_packages)
	[ "${tested[0]:-}" = "$(head -n 1 "$TREE/.git/ptshare-source")" ] || return 0
	[ "$(repo_text)" = "$(tree_text)" ] ||
		{ echo "kernel/patches is not as an export writes it: run 'make export-hooks'" && return 1; }
}

# Each patch in turn, by git apply, which knows no fuzz; and not with -3.
check_fuzz() {
	local index=$TREE/.git/ptshare-index.$BASHPID patch rc=0
	GIT_INDEX_FILE=$index tgit read-tree "$OVERLAY_COMMIT"
	for patch in "${patches[@]}"; do
		GIT_INDEX_FILE=$index tgit apply --cached --whitespace=error-all "$patch" 2>&1 ||
			{ rc=1; echo "$(basename "$patch"): does not apply without fuzz" && break; }
	done
	rm -f "$index"
	return "$rc"
}

# checkpatch TYPES ARGS...: --strict without the message types TYPES.  Its SPDX
# check needs Debian's own python3, with the modules that setup installs.
checkpatch() {
	(cd "$TREE" && PATH=/usr/bin:$PATH perl scripts/checkpatch.pl --strict --quiet --show-types \
		--max-line-length=100 --ignore "$1" "${@:2}")
}

check_patches_style() {
	# UNKNOWN_COMMIT_ID: asks upstream's history, which this tree has not.
	# LINE_SPACING: hooks look like their neighbours, stubs without blank
	# lines between them for instance.
	[ ${#patches[@]} -eq 0 ] ||
		checkpatch UNKNOWN_COMMIT_ID,LINE_SPACING "${patches[@]}"
}

check_overlay_style() {
	local -a files events tests
	mapfile -t files < <(overlay_files '\.[ch]$' | grep -vE '^(tools|include/trace)/')
	mapfile -t events < <(overlay_files '\.[ch]$' | grep ^include/trace/)
	mapfile -t tests < <(overlay_files '\.[ch]$' | grep ^tools/)
	# EMBEDDED_FILENAME: the header comments of mm/ begin with the name.
	# UNDOCUMENTED_SETUP: it reads the documentation from a patch only.
	[ ${#files[@]} -eq 0 ] ||
		checkpatch EMBEDDED_FILENAME,UNDOCUMENTED_SETUP -f "${files[@]}"
	# Tracepoints are declared in macros that are written like code.
	[ ${#events[@]} -eq 0 ] ||
		checkpatch PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE -f "${events[@]}"
	# Tests race with the kernel on purpose (VOLATILE); the harness' EXPECT
	# macros need braces that look needless, and loops over tables a macro.
	# PREFER_DEFINED_ATTRIBUTE_MACRO: user space has none of the kernel's.
	[ ${#tests[@]} -eq 0 ] ||
		checkpatch VOLATILE,BRACES,MACRO_ARG_REUSE,PREFER_DEFINED_ATTRIBUTE_MACRO \
			-f "${tests[@]}"
}

# --- what compiles ---------------------------------------------------------
#
# A second work tree of the same repository, with objects of its own, goes
# from commit to commit; make sees which files differ.

WORK=$BUILD/check/linux
OBJ=$WORK/.obj-check
LOG=$BUILD/logs/check.log

goto() {
	mkdir -p "$WORK"
	GIT_INDEX_FILE=$BUILD/check/index git --git-dir="$TREE/.git" --work-tree="$WORK" \
		-C "$WORK" read-tree --reset -u "$1"
}

# configure_at NAME: NAME's commit is checked out: configure it, with what of
# the fragments exists already.
configure_at() {
	write_config "$WORK" "$OBJ" plain >>"$LOG" 2>&1 ||
		{ tail -n 5 "$LOG"; echo "$1: cannot be configured"; return 1; }
}

# warnings ARGS...: compile with W=1 and sparse, print what both say, without
# line numbers.
warnings() {
	local out=$BUILD/check/warnings
	kmake "$WORK" "$OBJ" -j"$JOBS" -k W=1 "$@" >"$out" 2>&1 || {
		cat "$out" >>"$LOG"
		{ grep -E '( error:|undefined reference)' "$out" || tail -n 5 "$out"; } |
			head -n 10 >&2
		return 1
	}
	cat "$out" >>"$LOG"
	grep -E '(warning|error):' "$out" | sed -E 's/:[0-9]+:[0-9]+:/:/' | sort -u || true
}

touched() {
	tgit diff-tree -r --no-renames --name-only "$1" "$2"
}

overlay_files() {
	tgit ls-tree -r --name-only "$(new_files "$HISTORY")" | grep -E "$1" || true
}

# objects_of: the objects of .c files on stdin that the kernel is made of.
objects_of() {
	grep -E '\.c$' | grep -vE '^(arch/[^x]|tools/|Documentation/|samples/|scripts/)' | sed 's/c$/o/' || true
}

# Each commit by itself builds the objects that any hook touches; all of them
# together bring no warning of gcc or sparse that the kernel did not have.
check_objects() {
	local -a hooked own frags
	local before='' after new commit previous=$OVERLAY_COMMIT name lost
	mapfile -t hooked < <(touched "$OVERLAY_COMMIT" "$HISTORY" | objects_of)
	mapfile -t own < <(overlay_files . | objects_of)
	[ ${#hooked[@]} -gt 0 ] || [ ${#own[@]} -gt 0 ] || return 0
	need_space 2500
	: >"$LOG"
	goto "$OVERLAY_COMMIT"
	configure_at "the overlay's commit"
	[ ${#hooked[@]} -eq 0 ] || before=$(warnings C=2 "${hooked[@]}") ||
		{ echo "the overlay's commit does not build"; return 1; }
	for commit in $(tgit rev-list --reverse "$OVERLAY_COMMIT..$HISTORY"); do
		name=$(tgit log -1 --format=%s "$commit")
		goto "$commit"
		if touched "$previous" "$commit" | grep -q Kconfig; then
			configure_at "\"$name\""
		fi
		[ ${#hooked[@]} -eq 0 ] || warnings "${hooked[@]}" >/dev/null ||
			{ echo "does not build: \"$name\""; return 1; }
		previous=$commit
	done
	after=$(warnings C=2 "${hooked[@]}" "${own[@]}") ||
		{ echo "the last commit does not build"; return 1; }
	mapfile -t frags < <(fragments plain)
	lost=$(lost_options "$OBJ/.config" "${frags[@]}")
	[ -z "$lost" ] || { echo "options that the kernel does not know: $lost"; return 1; }
	new=$(comm -13 <(sort <<<"$before") <(sort <<<"$after"))
	[ -z "$new" ] || { echo "$new"; return 1; }
}

# The objects that hooks touch, with the features configured out, have the same
# functions and data, of the same sizes, as in the stock kernel.  (Sizes, because
# line numbers are part of the code: in what WARN() says, for instance.)
check_hooks_off() {
	local obj=$WORK/.obj-off stock_objects=$BUILD/check/off commit object
	local -a objects
	mapfile -t objects < <(touched "$OVERLAY_COMMIT" "$HISTORY" | objects_of)
	[ ${#objects[@]} -gt 0 ] || return 0
	rm -rf "$stock_objects"
	for commit in pristine "$HISTORY"; do
		goto "$commit"
		if ! { write_config "$WORK" "$obj" off &&
			kmake "$WORK" "$obj" -j"$JOBS" "${objects[@]}"; } >>"$LOG" 2>&1; then
			tail -n 5 "$LOG"
			echo "does not build with the features off"
			return 1
		fi
		[ "$commit" = pristine ] || continue
		mkdir -p "$stock_objects"
		(cd "$obj" && cp --parents "${objects[@]}" "$stock_objects")
	done
	for object in "${objects[@]}"; do
		"$WORK/scripts/bloat-o-meter" "$stock_objects/$object" "$obj/$object" | sed "s|^|$object: |"
	done >"$BUILD/check/bloat-hooks"
	grep -c ': Total: ' "$BUILD/check/bloat-hooks" | grep -qx ${#objects[@]} ||
		{ echo "bloat-o-meter failed"; return 1; }
	! grep -vE ': (add/remove: 0/0 grow/shrink: 0/0 |Function |Total: )' "$BUILD/check/bloat-hooks"
}

# --- --full ----------------------------------------------------------------

check_commits() {
	local commit name
	: >"$LOG"
	for commit in $(tgit rev-list --reverse "pristine..$HISTORY"); do
		name=$(tgit log -1 --format=%s "$commit")
		goto "$commit"
		configure_at "\"$name\""
		(compile "building \"$name\"" "$LOG" "$WORK" "$OBJ" -j"$JOBS" LOCALVERSION=-check bzImage) ||
			{ echo "does not build: \"$name\""; return 1; }
	done
}

# With the features configured out no function of the kernel may grow.
check_off() {
	local off stock
	off=$("$ROOT/kernel/build.sh" --flavour off --version "$V")
	stock=$("$ROOT/kernel/build.sh" --flavour stock --version "$V")
	"$TREE/scripts/bloat-o-meter" "${stock%/arch/*}/vmlinux" "${off%/arch/*}/vmlinux" |
		tee "$BUILD/check/bloat" >&2
	grep -q '^add/remove: 0/0 grow/shrink: 0/0 ' "$BUILD/check/bloat" ||
		{ echo "the kernel without the features differs from the stock kernel (see above)"; return 1; }
}

# --- running them ----------------------------------------------------------

FAILURES=()
check() {
	local rc
	step "$1"
	# In an "if" or before "||", the function would not stop at an error.
	set +e
	(set -e; "$2") >&2
	rc=$?
	set -e
	[ $rc = 0 ] || FAILURES+=("$1")
}

main() {
	local mode='' version='' why state package

	while [ $# -gt 0 ]; do
		case $1 in
		--sync | --exported | --full) mode=${1#--} ;;
		--version)
			version=${2:?--version needs a version}
			shift
			;;
		*) die "usage: kernel/check.sh [--sync | --exported | --full] [--version VERSION]" ;;
		esac
		shift
	done

	if [ "$mode" = sync ]; then
		use_version "${version:-$(kernel_version 2>/dev/null)}"
		# No tree, nothing that could differ.
		[ -e "$TREE/.git/ptshare-source" ] || exit 0
		why=$(check_sync) || die "$why"
		exit 0
	fi
	if [ "$mode" = exported ]; then
		for package in $(held_packages); do
			use_version "$(upstream_version "$package")"
			case $(tree_state) in
			tree | both) die "$SHORT has changes that are not exported: run 'make export-hooks VERSION=$V', or remove build/ by hand" ;;
			esac
		done
		exit 0
	fi

	need_tools git ccache gcc make flex bison bc perl xz shellcheck codespell sparse python3
	check "shellcheck" check_shell
	check "Python compiles" check_python
	check "spelling" check_spelling

	use_version "${version:-$(kernel_version)}"
	state=''
	[ ! -e "$TREE/.git/ptshare-source" ] || state=$(tree_state)
	case $state in
	tree | both) ;;
	*) "$ROOT/kernel/prepare.sh" --version "$V" ;;
	esac
	lock check
	mkdir -p "$BUILD/check" "$BUILD/logs"
	check "the tree and the repository are equal" check_sync
	[ "$(tree_state)" = same ] ||
		die "failed: $(printf '%s; ' "${FAILURES[@]}")the other checks of the kernel need equal ones"

	# What is checked is the repository's history, however the tree came by it.
	mapfile -t patches < <(patch_files "$PATCHES")
	build_history "$(repo_overlay)" "$PATCHES"
	count="${#patches[@]} patches"
	check "the series is as exported" check_exported
	check "$count apply with zero fuzz" check_fuzz
	check "checkpatch: $count" check_patches_style
	check "checkpatch: $(overlay_files '\.[ch]$' | wc -l) new C files" check_overlay_style
	check "each commit builds; no new warning (gcc W=1, sparse)" check_objects
	check "with the features off, what hooks touch is as in the stock kernel" check_hooks_off
	if [ "$mode" = full ]; then
		check "the kernel builds at each commit" check_commits
		check "with the features off it is the stock kernel" check_off
	fi
	[ ${#FAILURES[@]} -eq 0 ] ||
		die "failed: $(printf '%s; ' "${FAILURES[@]}" | sed 's/; $//')"
	step "all checks passed: $count, $(overlay_files . | wc -l) new files, Linux $V"
	# Whoever edits this file while it runs does no harm: nothing more is read.
	exit 0
}

main "$@"
