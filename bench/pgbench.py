#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""PostgreSQL under pgbench, inside the VM; prints lines as bench.h describes them.

    ro, rw      transactions that read, that read and write
    connect     the same as ro, with a connection for each

tps is what matters; p50, p95 and p99 are latencies, page-tables the most that all
processes had meanwhile.  The server is Debian's, unmodified; its buffers hold the
whole database and are warm.  hugetlb is huge_pages=on.  Each variant starts from a
copy of the same database.

With -t, for an emulator that counts instructions: so many transactions instead of so
many seconds; and instead of tps and latencies the CPU time of client and server, from
the client's start to its end, for each transaction. (There, whoever waits for the
host's files waits for seconds: the clock goes on to the next timer.)
"""

import argparse
import glob
import math
import os
import re
import shutil
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "demo"))
import postgres  # pylint: disable=wrong-import-position

PLACE = "/tmp/bench-pgbench"
PRISTINE = "/tmp/bench-pgbench.pristine"
GAUGE = "/sys/kernel/mm/ptshare/attached"
CGROUP = "/sys/fs/cgroup/bench-pgbench"
KINDS = {"ro": ("-S",), "rw": (), "connect": ("-S", "-C")}


class PageTables(threading.Thread):
    """Watches how many KiB of page tables there are, until it is left."""

    def __init__(self, interval):
        super().__init__(daemon=True)
        self.interval = interval
        self.most, self.attached, self.ended = 0, 0, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.join()

    def run(self):
        while not self.ended.wait(self.interval):
            with open("/proc/sys/vm/stat_refresh", "w", encoding="ascii") as refresh:
                refresh.write("1")
            with open("/proc/meminfo", encoding="ascii") as info:
                found = re.search(r"^PageTables: *(\d+)", info.read(), re.MULTILINE)
            self.most = max(self.most, int(found[1]))
            if os.path.exists(GAUGE):
                with open(GAUGE, encoding="ascii") as gauge:
                    self.attached = max(self.attached, int(gauge.read()))


def check(variant, watch):
    """Whether what was measured was the variant."""
    if variant == "always" and not watch.attached:
        raise postgres.PostgresError("always: no shared page table was attached")
    if variant != "always" and watch.attached:
        raise postgres.PostgresError(f"{variant}: shared page tables were attached")


def enter_cgroup():
    """Whatever we start is counted there."""
    os.makedirs(CGROUP, exist_ok=True)
    with open(os.path.join(CGROUP, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write("0")


def cpu_time():
    """ns that all in the cgroup have run so far."""
    with open(os.path.join(CGROUP, "cpu.stat"), encoding="ascii") as stat:
        return 1000 * int(re.search(r"^usage_usec (\d+)", stat.read(), re.MULTILINE)[1])


def percentile(values, part):
    """The nearest one; values are sorted."""
    return values[max(0, math.ceil(part * len(values)) - 1)]


def report(series, clients, values, unit):
    """One line: the median, least and greatest."""
    values = sorted(values)
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    print(f"{series} {clients} {middle:.4f} {unit} {values[0]:.4f} {values[-1]:.4f}", flush=True)


def one_run(server, opts, kind, clients):
    """tps or ns for each transaction, sorted latencies in us, and who watched."""
    prefix = os.path.join(PLACE, "latency")
    much = ["-t", str(opts.transactions[kind])] if opts.count else ["-T", str(opts.seconds)]
    start = cpu_time() if opts.count else 0
    with PageTables(0.1 if opts.count else 0.5) as watch:
        output = server.run("pgbench", "-n", *KINDS[kind], "-c", str(clients), "-j", "1",
                            *much, "-l", f"--log-prefix={prefix}")
    if opts.count:
        result = (cpu_time() - start) / (clients * opts.transactions[kind])
    else:
        result = float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)[1])
    latencies = []
    for path in glob.glob(prefix + ".*"):
        with open(path, encoding="ascii") as log:
            latencies += [int(line.split()[2]) for line in log]
        os.unlink(path)
    if not latencies or "number of failed transactions: 0 " not in output:
        raise postgres.PostgresError(f"pgbench: transactions failed:\n{output}")
    return result, sorted(latencies), watch


def measure(server, opts, kind, clients):
    """All series of one kind for so many clients."""
    results = [one_run(server, opts, kind, clients) for _ in range(opts.runs)]
    for _, _, watch in results:
        check(opts.variant, watch)
    if opts.count:
        report(kind, clients, [cost for cost, _, _ in results], "ns/transaction")
    else:
        report(f"{kind}.tps", clients, [tps for tps, _, _ in results], "tps")
        for part in (50, 95, 99):
            report(f"{kind}.p{part}", clients,
                   [percentile(latencies, part / 100) for _, latencies, _ in results], "us")
    report(f"{kind}.page-tables", clients, [watch.most for _, _, watch in results], "KiB")


def prepare(server, scale):
    """A database to begin with, made once in a VM; or a copy of it."""
    if not os.path.exists(PRISTINE):
        server.init()
        with server:
            server.run("pgbench", "-i", "-q", "-s", str(scale))
            connection = server.connect()
            connection.query("CREATE EXTENSION pg_prewarm")
            connection.close()
        os.rename(server.directory, PRISTINE)
    shutil.rmtree(server.directory, ignore_errors=True)
    shutil.copytree(PRISTINE, server.directory, copy_function=shutil.copy2)
    if os.geteuid() == 0:
        for directory, _, names in os.walk(server.directory):
            for path in [directory] + [os.path.join(directory, name) for name in names]:
                shutil.chown(path, server.user, server.user)
    with open(os.path.join(server.data, "postgresql.conf"), "a", encoding="ascii") as conf:
        conf.write(f"huge_pages = {server.settings['huge_pages']}\n")


def warm(server):
    """Read all into shared_buffers."""
    connection = server.connect()
    connection.query("SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'pgbench_accounts%'")
    connection.close()


def arguments():
    """Those of bench.h."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-v", dest="variant", default="stock",
                        choices=("stock", "never", "always", "hugetlb", "thp"))
    parser.add_argument("-r", dest="runs", type=int, default=3)
    parser.add_argument("-q", dest="quick", action="store_true")
    parser.add_argument("-t", dest="count", action="store_true")
    parser.add_argument("-x", dest="clients")
    opts = parser.parse_args()
    opts.seconds = 3 if opts.quick else 10
    opts.runs = 1 if opts.quick else opts.runs
    opts.scale = 1 if opts.quick else 3 if opts.count else 10
    opts.transactions = {"ro": 400, "rw": 100, "connect": 20}
    if opts.quick:
        opts.transactions = {"ro": 200, "rw": 40, "connect": 5}
    default = "4" if opts.quick else "8,32"
    opts.clients = [int(word) for word in (opts.clients or default).split(",")]
    return opts


def main():
    """Measure one variant."""
    opts = arguments()
    server = postgres.Server(PLACE, shared_buffers="256MB",
                             huge_pages="on" if opts.variant == "hugetlb" else "off",
                             max_connections=str(max(opts.clients) + 10))
    if opts.count:
        enter_cgroup()
    try:
        prepare(server, opts.scale)
        print(f"# PostgreSQL {server.version()}, scale {opts.scale}, shared_buffers=256MB, "
              + (f"transactions of each client: {opts.transactions}" if opts.count
                 else f"{opts.seconds} s each"))
        with server:
            warm(server)
            # What a kernel runs first waits for the host's files.
            for kind in KINDS:
                one_run(server, opts, kind, 2)
            for clients in opts.clients:
                for kind in KINDS:
                    measure(server, opts, kind, clients)
    finally:
        server.remove()


if __name__ == "__main__":
    try:
        main()
    except postgres.PostgresError as problem:
        sys.exit(f"error: {problem}")
