# SPDX-License-Identifier: GPL-2.0
"""A throw-away PostgreSQL server and a tiny client, standard library only.

Server runs Debian's unmodified binaries on a private data directory, reachable
over a unix socket in that directory and nothing else.  Nothing is fsynced: the
directory is expected to live in memory and to die with the VM.

Connection speaks just enough of the frontend/backend protocol (version 3,
simple queries, trust authentication) to hold many backends open at once from
one process, which would be slow with one psql each.

    server = Server("/tmp/pg", shared_buffers="256MB")
    server.init()
    with server:		# started here, stopped when left
        connection = server.connect()
        print(connection.pid, connection.query("SELECT 1"))
"""

import glob
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess

DEFAULTS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "huge_pages": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(Exception):
    """The server said no, or is not there."""


def binaries():
    """Directory of the newest installed PostgreSQL server."""
    def version(path):
        return [int(n) for n in re.findall(r"\d+", path)]
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=version)
    if not found:
        raise PostgresError("no PostgreSQL server installed; run: make setup")
    return os.path.dirname(found[-1])


class Server:
    """A server on its own data directory; start and stop it as often as liked."""

    def __init__(self, directory, **settings):
        self.bin = binaries()
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.log = os.path.join(directory, "log")
        self.settings = DEFAULTS | settings
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def run(self, program, *args):
        """Run one of PostgreSQL's programs as the server's user; return its stdout."""
        identity = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        env = {"PATH": self.bin + ":/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC",
               "PGHOST": self.directory, "PGUSER": "postgres", "PGDATABASE": "postgres"}
        result = subprocess.run([os.path.join(self.bin, program), *args], env=env,
                                cwd="/", stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, check=False, **identity)
        if result.returncode:
            raise PostgresError(f"{program} failed ({result.returncode}): "
                                + (result.stderr.strip() or result.stdout.strip()))
        return result.stdout

    def init(self):
        """Create an empty database cluster, replacing any that is there."""
        self.remove()
        os.makedirs(self.directory, mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.directory, self.user, self.user)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "SQL_ASCII",
                 "--no-locale", "--no-sync", "--no-instructions")
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as conf:
            conf.write(f"unix_socket_directories = '{self.directory}'\n")
            conf.writelines(f"{name} = {value}\n" for name, value in self.settings.items())

    def start(self):
        """Start the server and wait until it takes connections."""
        try:
            self.run("pg_ctl", "-D", self.data, "-l", self.log, "-t", "300", "-w", "-s", "start")
        except PostgresError as error:
            raise PostgresError(f"{error}\n{self.log_tail()}") from error

    def stop(self):
        """Stop the server, waiting for its processes to go."""
        self.run("pg_ctl", "-D", self.data, "-t", "300", "-m", "fast", "-w", "-s", "stop")

    def remove(self):
        """Remove everything, if there is anything."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, lines=15):
        """The last lines of the server's log."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                return "".join(log.readlines()[-lines:]).rstrip()
        except FileNotFoundError:
            return "(no server log)"

    def version(self):
        """E.g. "15.20"."""
        return self.run("postgres", "--version").split()[2]

    def connect(self):
        """A new connection, which is a new backend process."""
        return Connection(os.path.join(self.directory, ".s.PGSQL.5432"))


class Connection:
    """One backend; attribute pid is its process id."""

    def __init__(self, path):
        self.pid = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.stream = self.socket.makefile("rb")
        startup = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack("!I", len(startup) + 4) + startup)
        self._answer()

    def query(self, sql):
        """Run SQL; return the rows, each a tuple of strings (None for NULL)."""
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return self._answer()

    def close(self):
        """End the backend."""
        self.socket.sendall(b"X" + struct.pack("!I", 4))
        self.stream.close()
        self.socket.close()

    def _message(self):
        header = self.stream.read(5)
        if len(header) < 5:
            raise PostgresError("the server closed the connection")
        kind, length = struct.unpack("!cI", header)
        return kind, self.stream.read(length - 4)

    def _answer(self):
        """Read messages up to ReadyForQuery; return the rows among them."""
        rows, error = [], None
        while True:
            kind, body = self._message()
            if kind == b"Z":
                break
            if kind == b"R" and struct.unpack("!I", body[:4])[0] != 0:
                raise PostgresError("the server wants a password")
            if kind == b"K":
                self.pid = struct.unpack("!I", body[:4])[0]
            elif kind == b"D":
                rows.append(self._row(body))
            elif kind == b"E":
                error = self._error(body)
                if self.pid is None:		# startup failed: no ReadyForQuery follows
                    break
        if error:
            raise PostgresError(error)
        return rows

    @staticmethod
    def _error(body):
        fields = {f[:1]: f[1:].decode(errors="replace") for f in body.split(b"\0") if f}
        return fields.get(b"M", "unknown error")

    @staticmethod
    def _row(body):
        columns, offset = [], 2
        for _ in range(struct.unpack("!H", body[:2])[0]):
            length = struct.unpack("!i", body[offset:offset + 4])[0]
            offset += 4
            if length < 0:
                columns.append(None)
                continue
            columns.append(body[offset:offset + length].decode())
            offset += length
        return tuple(columns)
