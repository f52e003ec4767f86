#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# export.sh - the complete series, ready to be mailed, in build/export
#
# Usage: kernel/export.sh [--version VERSION]
#
# A cover letter, one patch with the new files, then the hooks.  The cover
# letter's subject and text are kernel/cover-letter.txt: the first line, and
# what follows it.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
. "$ROOT/kernel/lib/tree.sh"

version=''
case ${1:-} in
'') ;;
--version) version=${2:?--version needs a version} ;;
*) die "usage: kernel/export.sh [--version VERSION]" ;;
esac
use_version "${version:-$(kernel_version)}"
"$ROOT/kernel/prepare.sh" --version "$V"
[ "$(tree_state)" = same ] || die "$SHORT has changes that are not exported: run 'make export-hooks' first"
[ "$(tgit rev-parse HEAD)" != "$(tgit rev-parse 'pristine^{commit}')" ] ||
	die "nothing to mail: kernel/overlay and kernel/patches are empty"

scratch
tgit format-patch -q --cover-letter --no-signature -o "$SCRATCH" pristine..HEAD
cover=$ROOT/kernel/cover-letter.txt
if [ -e "$cover" ]; then
	python3 - "$cover" "$SCRATCH/0000-cover-letter.patch" <<-'END'
		import sys
		text, letter = sys.argv[1:]
		subject, _, body = open(text, encoding="utf-8").read().partition("\n")
		mail = open(letter, encoding="utf-8").read()
		mail = mail.replace("*** SUBJECT HERE ***", subject.strip())
		mail = mail.replace("*** BLURB HERE ***", body.strip())
		open(letter, "w", encoding="utf-8").write(mail)
	END
else
	step "note: there is no kernel/cover-letter.txt; the cover letter is a form to fill in"
fi
rm -rf "$BUILD/export"
mv "$SCRATCH" "$BUILD/export"
chmod 755 "$BUILD/export"
step "$(find "$BUILD/export" -name '*.patch' | wc -l) mails for Linux $V in build/export"
