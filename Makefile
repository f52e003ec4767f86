# SPDX-License-Identifier: GPL-2.0
#
# Thin: every target calls one script.  'make help' lists them.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Each target keeps all processors busy by itself.
.NOTPARALLEL:

# The scripts know the version as PTSHARE_KERNEL: other programs' environments
# have a VERSION too.
ifeq ($(origin VERSION),command line)
export PTSHARE_KERNEL := $(VERSION)
endif
unexport VERSION
export JOBS

help:           ## this list
	@echo 'make demo and make test work as the first command on Debian 12 and 13.'
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 18
	@echo 'Variables: FLAVOUR=plain|debug|stock VERSION=6.12.N SUITE=NAME BENCH=NAME JOBS=N'

setup:          ## install the Debian packages that are missing
	@scripts/setup $(GROUP)

kernel: base    ## build a kernel [FLAVOUR=] [VERSION=]; its tree is build/linux
	@kernel/build.sh --flavour $(or $(FLAVOUR),plain)

demo: setup     ## show the problem: a database in the VM, and its page tables
	@demo/run

test: setup     ## run the suites [SUITE=] [FLAVOUR=] [VERSION=]
	@tests/run $(if $(SUITE),--suite $(SUITE)) $(if $(FLAVOUR),--flavour $(FLAVOUR))
	@$(if $(SUITE)$(FLAVOUR),:,kernel/mark-tested.sh pass)

test-full: setup ## run also what takes long
	@tests/run --full

bench: setup    ## what it costs and saves: stock, off, on, huge pages [BENCH=]
	@bench/run $(BENCH)

vm: base        ## a shell in the VM [FLAVOUR=]
	@vm/run $(if $(FLAVOUR),--flavour $(FLAVOUR))

check: base     ## scripts, patches and overlay: style, order, builds (minutes)
	@kernel/check.sh

check-full: base ## check, with the kernel built at each commit (an hour or more)
	@kernel/check.sh --full

check-sync:     ## only: the overlay and the patches equal the tree (seconds)
	@kernel/check.sh --sync

export-hooks:   ## write the work done in build/linux to kernel/
	@kernel/export-hooks.sh

refresh: base   ## bring the patches to another point release, VERSION=
	@kernel/refresh.sh $(VERSION)

mark-tested:    ## record in kernel/tested that make test has passed [VERSION=]
	@kernel/mark-tested.sh record

export:         ## the series with its cover letter, to be mailed: build/export
	@kernel/export.sh

clean:          ## remove what was built; keep the kernel trees and downloads
	@[ ! -d build ] || find build -mindepth 1 -maxdepth 1 \
		! -name 'linux*' ! -name dl -exec rm -rf {} +
	@rm -rf build/linux-*/.obj-*

distclean:      ## remove build/, with the kernel trees
	@kernel/check.sh --exported
	@rm -rf build

base:
	@scripts/setup base

.PHONY: help setup kernel demo test test-full bench vm check check-full
.PHONY: check-sync export-hooks refresh mark-tested export clean distclean base
