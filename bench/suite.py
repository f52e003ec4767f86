# SPDX-License-Identifier: GPL-2.0
"""The table of benchmarks."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bench:
    """One benchmark: a program, and what it needs of its VM."""
    name: str
    question: str
    xlabel: str
    # What X is in series that end (or, with a dot, begin) like this.
    xlabels: dict = dataclasses.field(default_factory=dict)
    script: str = ""                # this in bench/, instead of NAME.c
    args: tuple = ()                # of the program, before those of bench.h
    peers: tuple = ("hugetlb", "thp")
    icount: bool = True             # one CPU, instructions; else time
    ipi: bool = False               # with several CPUs, TLB interrupts
    cpus: int = 1
    numa: int = 1
    mem: str = "2G"
    huge_pages: int = 64            # of 2 MiB, while hugetlb is measured
    swap: str = "0"
    jump: bool = False              # kernels with jump labels; with icount only
    # (over, under, most): what each ratio may be at most.
    limits: tuple = ()
    timeout: int = 3600
    kvm_x: str = ""                 # more X than an emulator has time for


BENCHES = (
    Bench("ptbytes", "What do page tables cost each process?", "processes",
          mem="4608M", huge_pages=512),
    Bench("faults", "What does it cost a process to touch all of the memory?", "size in MiB",
          xlabels={"ramp": "processes"}, huge_pages=512, mem="3G"),
    Bench("rmap", "What does it cost to take pages from N processes?", "processes that map them",
          ipi=True, numa=2, swap="512M"),
    Bench("vmaops", "What do operations on a big mapping cost?", "size in MiB",
          xlabels={"/N": "processes that map it"}, ipi=True, huge_pages=256),
    Bench("offcost", "What does the feature cost who has nobody to share with?", "processes",
          peers=(), jump=True, limits=(("never", "stock", 1.005), ("always", "stock", 1.02))),
    Bench("contention", "What if all touch the same memory at once?", "processes",
          icount=False, cpus=0),
    Bench("pgbench", "What does PostgreSQL make of it? (tps: more is better)", "clients",
          script="pgbench.py", icount=False, cpus=0, mem="3G", huge_pages=300, kvm_x="8,50,200"),
    Bench("pgcost", "How much work is a transaction for PostgreSQL and the kernel?", "clients",
          script="pgbench.py", args=("-t",), mem="3G", huge_pages=300),
    Bench("vmbackend", "What if other processes map a virtual machine's memory?",
          "memory of the virtual machine in MiB", mem="4G", huge_pages=512),
)

NAMES = tuple(bench.name for bench in BENCHES)
