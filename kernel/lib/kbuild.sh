# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# kbuild.sh - configure and compile a kernel source directory
#
# Objects live in a directory *below* the source (.obj-NAME): kbuild then
# names files relative to it, and ccache finds in its cache what another clone
# of this repository, at another path, has compiled.
#
# Source after scripts/lib.sh.

# kmake SOURCE OBJ ARGS...: make in a clean environment, so that a result
# depends on the source, the configuration and the compiler only.
kmake() {
	local source=$1 obj=$2 name
	local -a keep=()
	shift 2
	for name in "${!CCACHE_@}" HOME PATH TERM; do
		keep+=("$name=${!name:-}")
	done
	env -i "${keep[@]}" LC_ALL=C CCACHE_BASEDIR="$ROOT" CCACHE_NOHASHDIR=1 \
		make -C "$source" O="$obj" --no-print-directory \
		ARCH=x86_64 CC="ccache gcc" HOSTCC="ccache gcc" \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026' \
		KBUILD_BUILD_USER=ptshare KBUILD_BUILD_HOST=localhost KBUILD_BUILD_VERSION=1 \
		"$@"
}

JOBS=${JOBS:-$(nproc)}

# fragments FLAVOUR: the configuration files, later ones win.
fragments() {
	local config=$ROOT/kernel/config
	echo "$config/vm.config"
	case $1 in
	plain | plain-jump | debug)
		[ ! -e "$config/ptshare.config" ] || echo "$config/ptshare.config"
		;;
	esac
	[ "$1" != debug ] || echo "$config/debug.config"
	[[ $1 != *-jump ]] || echo "$config/jump.config"
}

# options FRAGMENT...: "CONFIG_NAME VALUE", the last word on each option.
options() {
	sed -n -E -e 's/^# (CONFIG_[A-Za-z0-9_]+) is not set$/\1 n/p' \
		-e 's/^(CONFIG_[A-Za-z0-9_]+)=(.*)$/\1 \2/p' "$@" |
		awk '{ name = $1; sub(/^[^ ]* /, ""); value[name] = $0 }
			END { for (name in value) print name, value[name] }' | sort
}

# lost_options CONFIG FRAGMENT...: what the fragments ask for and CONFIG lacks.
lost_options() {
	local config=$1
	shift
	comm -23 <(options "$@" | grep -v ' n$') <(options "$config" | grep -v ' n$')
	# "n" and not mentioned are the same.
	comm -12 <(options "$@" | sed -n 's/ n$//p') \
		<(options "$config" | grep -v ' n$' | cut -d' ' -f1) | sed 's/$/ n/'
}

# write_config SOURCE OBJ FLAVOUR: allnoconfig and the fragments.  A .config
# that is right already keeps its date, so that nothing is compiled again.
write_config() {
	local source=$1 obj=$2 new=$2/.config.new
	local -a frags
	mapfile -t frags < <(fragments "$3")
	mkdir -p "$obj"
	rm -f "$new" "$new.old"
	kmake "$source" "$obj" KCONFIG_CONFIG="$new" allnoconfig &&
		(cd "$obj" && KCONFIG_CONFIG=$new "$source/scripts/kconfig/merge_config.sh" \
			-m -Q "$new" "${frags[@]}") &&
		kmake "$source" "$obj" KCONFIG_CONFIG="$new" olddefconfig || return 1
	if cmp -s "$new" "$obj/.config"; then
		rm "$new"
	else
		mv "$new" "$obj/.config"
	fi
	rm -f "$new.old"
}

# config_stamp FLAVOUR: what, besides Kconfig files, a configuration is made of.
config_stamp() {
	local -a frags
	mapfile -t frags < <(fragments "$1")
	{
		cat "${frags[@]}" "${BASH_SOURCE[0]}"
		gcc --version
	} | sha256sum
}

# configure SOURCE OBJ FLAVOUR LOG: write_config when something has changed.
# The stamp's date is what Kconfig files are compared with.
configure() {
	local source=$1 obj=$2 flavour=$3 log=$4
	local stamp=$2/.ptshare-config lost
	local -a frags
	if [ -e "$obj/.config" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(config_stamp "$flavour")" ] &&
		[ -z "$(find "$source" -name '.obj-*' -prune -o -name 'Kconfig*' \
			-newer "$stamp" -print -quit)" ]; then
		return
	fi
	rm -f "$stamp"
	mkdir -p "$obj"
	touch "$stamp.new"
	write_config "$source" "$obj" "$flavour" >>"$log" 2>&1 || {
		tail -n 10 "$log" >&2
		die "cannot configure the $flavour kernel: see $log"
	}
	mapfile -t frags < <(fragments "$flavour")
	lost=$(lost_options "$obj/.config" "${frags[@]}")
	[ -z "$lost" ] ||
		die "options of kernel/config that the $flavour kernel cannot have: $(tr '\n' ',' <<<"${lost// /=}" | sed 's/,$//; s/,/, /g')"
	# Older than a Kconfig file that is edited while this runs.
	config_stamp "$flavour" >"$stamp.text"
	touch -r "$stamp.new" "$stamp.text"
	mv "$stamp.text" "$stamp"
	rm "$stamp.new"
}

# progress NAME LOG: how far kbuild has come, for as long as this script runs;
# one line that changes on a terminal, else a line every half minute.
progress() {
	local count seconds=0
	while sleep 1 && kill -0 $$ 2>/dev/null; do
		seconds=$((seconds + 1))
		if [ -t 2 ]; then
			count=$(grep -cE '^  (CC|AS) ' "$2" || true)
			printf '\r>> %s: %d objects, %d:%02d ' "$1" "$count" \
				$((seconds / 60)) $((seconds % 60)) >&2
		elif [ $((seconds % 30)) = 0 ]; then
			count=$(grep -cE '^  (CC|AS) ' "$2" || true)
			step "$1: $count objects, $((seconds / 60)):$(printf %02d $((seconds % 60)))"
		fi
	done
}

# compile NAME LOG SOURCE OBJ ARGS...: kmake with progress; on failure the
# last errors, and the script ends.
compile() {
	local name=$1 log=$2 rc=0 watcher
	shift 2
	progress "$name" "$log" >/dev/null &
	watcher=$!
	kmake "$@" >>"$log" 2>&1 || rc=$?
	kill "$watcher" 2>/dev/null
	wait "$watcher" 2>/dev/null || true
	[ ! -t 2 ] || printf '\r\033[K' >&2
	[ $rc = 0 ] && return
	{ grep -E '(error|undefined reference|No space left|\*\*\*|Killed)' "$log" || cat "$log"; } |
		tail -n 15 >&2
	die "$name: the build failed; the whole log is $log"
}
