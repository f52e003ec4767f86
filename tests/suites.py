# SPDX-License-Identifier: GPL-2.0
"""The table of test suites.  tests/run runs them; see there.

A suite is a command that prints TAP: on the host, or as root in a VM that
boots a kernel of the flavour in question.  Paths are relative to the top of
the repository; "{flavour}" in an argument stands for the kernel's flavour.
"""

from dataclasses import dataclass

# Policies of page-table sharing under which a suite is run on a flavour, and on
# each of them with --full.  The debug kernel is slow; what can break is sharing.
POLICIES = {"plain": ("never", "always"), "debug": ("always",),
            "full": ("never", "always", "madvise")}

# Where only sharing is of interest.
ALWAYS = {flavour: ("always",) for flavour in ("plain", "debug", "full")}

# Kernels that are tested unless --flavour or --full asks for others.
FLAVOURS = ("plain", "debug")


@dataclass(frozen=True)
class Suite:
    """One line of the table."""
    name: str
    command: tuple			# what prints TAP
    about: str
    budget: int				# seconds for one run; it is stopped then, and has failed
    vm: bool = False
    flavours: tuple = ()		# kernels to run under (VM) or needed by it (host)
    policies: dict | None = None		# of page-table sharing, by flavour; None when it does not matter
    boot: tuple = ()			# further arguments to vm/run
    prepare: tuple = ()			# run first, on the host; not part of the budget
    full: bool = False			# only with --full


def boot_suite(variant, *boot, programs="boot.list", full=True):
    """Our selftests on a kernel that is booted in an unusual way."""
    programs = "tests/boot/" + programs
    return Suite("boot-" + variant, ("tests/boot/in-vm", variant, "{flavour}", programs),
                 f"what matters most, booted with {variant}", full=full,
                 budget=480, vm=True, flavours=("plain",), policies=ALWAYS, boot=boot,
                 prepare=("tests/kselftest/build.sh", programs))


def random_suite(seed):
    """A quarter of an hour of random operations, in a VM where nothing keeps still."""
    return Suite(f"random-{seed}", ("tests/random/in-vm", "900", str(seed)),
                 f"random operations against a model, seed {seed}", full=True,
                 budget=1200, vm=True, flavours=("debug",), policies=ALWAYS,
                 boot=("--mem", "1G", "--cpus", "4", "--numa", "2"),
                 prepare=("tests/kselftest/build.sh", "tests/kselftest/short.list"))


SUITES = (
    Suite("host", ("tests/host/run",), "the scripts and the test runner themselves",
          budget=120),
    Suite("check", ("tests/check",), "the patches, style and static checks",
          budget=900),
    Suite("harness", ("tests/harness/run",), "vm/run reports what it should, failures above all",
          budget=600, flavours=("plain",)),
    Suite("kunit", ("tests/kunit/in-vm.sh",), "unit tests inside the kernel",
          budget=180, vm=True, flavours=("plain", "debug"),
          boot=("--append", "kunit.enable=1")),
    Suite("kselftest", ("tests/kselftest/in-vm.sh", "{flavour}", "tests/kselftest/short.list"),
          "the kernel's own selftests of shared memory, and ours",
          budget=900, vm=True, flavours=("plain", "debug"), policies=POLICIES,
          boot=("--mem", "2G"), prepare=("tests/kselftest/build.sh", "tests/kselftest/short.list")),
    Suite("kselftest-slow", ("tests/kselftest/in-vm.sh", "{flavour}", "tests/kselftest/slow.list"),
          "selftests that are too slow for the debug kernel",
          budget=300, vm=True, flavours=("plain",), policies=POLICIES,
          boot=("--mem", "2G"), prepare=("tests/kselftest/build.sh", "tests/kselftest/slow.list")),
    Suite("kselftest-long", ("tests/kselftest/in-vm.sh", "{flavour}", "tests/kselftest/long.list"),
          "more selftests, on two NUMA nodes", full=True,
          budget=1800, vm=True, flavours=("plain", "debug"), policies=POLICIES,
          boot=("--mem", "2G", "--cpus", "4", "--numa", "2"),
          prepare=("tests/kselftest/build.sh", "tests/kselftest/long.list")),
    Suite("kselftest-uffd", ("tests/kselftest/in-vm.sh", "{flavour}", "tests/kselftest/uffd.list"),
          "all tests of userfaultfd", full=True,
          budget=1800, vm=True, flavours=("plain", "debug"), policies=POLICIES,
          boot=("--mem", "2G", "--cpus", "1"),
          prepare=("tests/kselftest/build.sh", "tests/kselftest/uffd.list")),
    Suite("kvm", ("tests/kselftest/in-vm.sh", "{flavour}", "tests/kselftest/kvm.list"),
          "virtual machines in the VM, on memory whose page tables are shared",
          budget=400, vm=True, flavours=("plain",), policies=POLICIES,
          boot=("--mem", "2G", "--numa", "2"),
          prepare=("tests/kselftest/build.sh", "tests/kselftest/kvm.list")),
    Suite("postgres", ("tests/postgres/in-vm",), "PostgreSQL keeps its books under pgbench",
          budget=300, vm=True, flavours=("plain",), policies=POLICIES,
          boot=("--mem", "2G")),
    Suite("compare-short", ("tests/compare/run", "tests/compare/compare-short.list",
                            "plain/never", "plain/always"),
          "selftests of the kernel give the same results with sharing", flavours=("plain",),
          budget=420, prepare=("tests/kselftest/build.sh", "tests/compare/compare-short.list")),
    Suite("compare", ("tests/compare/run", "tests/compare/compare.list", "stock", "plain/always"),
          "all selftests of mm and memfd give the results of the stock kernel",
          full=True, flavours=("stock", "plain"), budget=5400,
          prepare=("tests/compare/prepare", "tests/compare/compare.list")),
    boot_suite("pti", "--append", "pti=on", full=False),
    boot_suite("nosmp", "--append", "nosmp", full=False),
    boot_suite("nopcid", "--append", "nopcid"),
    # No KVM: few CPUs have five levels.
    boot_suite("la57", "--accel", "tcg", "--cpu", "max", programs="boot-la57.list"),
    *(random_suite(seed) for seed in (101, 102, 103, 104)),
    Suite("stress", ("tests/stress/in-vm", "20"), "stress-ng, with little memory", full=True,
          budget=1200, vm=True, flavours=("plain", "debug"), policies=ALWAYS,
          boot=("--mem", "768M", "--cpus", "4"), prepare=("scripts/setup", "full")),
)
