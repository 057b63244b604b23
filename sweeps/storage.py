"""Where Optuna keeps a study: SQLite in the study's folder, or any SQLAlchemy URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mir.errors import ClusterError, ConfigError
from sweeps.secrets import UNREADABLE, password_remedy, redacted, without_password

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

DATABASE = "study.db"
IN_MEMORY = "memory:"
"""As a URL: nothing is kept, and a study opened again is made again from the event log."""
LOCK_TIMEOUT_S = 120.0
SET_ASIDE = ".before-rebuild"


def storage_url(given: str | None, folder: Path) -> str:
    """The given URL, or SQLite in the folder."""
    return given or f"sqlite:///{folder.resolve() / DATABASE}"


def check_storage(url: str) -> None:
    """Raise ConfigError for a URL that is none, or lacks its driver; nothing is opened."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        # A ValueError quotes what it took for the port: a part of a password with an @ in it.
        said = UNREADABLE if isinstance(error, ValueError) else str(error).splitlines()[0]
        ours = url.startswith("postgresql:")
        driver = "install its driver" + (": pip install 'mirsweep[postgres]'" if ours else "")
        raise ConfigError(
            f"study.storage: {without_password(url)!r} cannot be used: {said}. Give an SQLAlchemy "
            f"URL such as 'sqlite:////data/study.db' or 'postgresql://user@host/name', and {driver}"
        ) from error


def open_storage(url: str) -> BaseStorage:
    """Connect. Raises ConfigError for a URL that is none, ClusterError if nobody answers."""
    from optuna.storages import InMemoryStorage, RDBStorage

    if url == IN_MEMORY:
        return InMemoryStorage()

    # SQLite's default of 5 s is shorter than a busy disk's pauses; other engines take no timeout.
    options = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if url.startswith("sqlite") else {}
    check_storage(url)
    with storage_errors(url):
        return RDBStorage(url, engine_kwargs=options)


def forget_study(given: str | None, folder: Path, name: str) -> None:
    """Take a study out of its storage, so that it can be made anew; none there is fine.

    given: as the recipe has it. A database in the study's folder is set aside, not read: it may
    be damaged. Raises ClusterError if the storage cannot be reached.
    """
    if given is None:
        for file in folder.glob(f"{DATABASE}*"):
            if not file.name.endswith(SET_ASIDE):
                file.replace(file.with_name(file.name + SET_ASIDE))
        return
    import optuna

    storage = open_storage(given)
    with storage_errors(given), suppress(KeyError):
        optuna.delete_study(study_name=name, storage=storage)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what Optuna and SQLAlchemy raise about the connection into one ClusterError."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (StorageInternalError, DBAPIError) as error:
        cause = error.__cause__ or error
        first = str(cause).splitlines()[0]
        remedy = "make it reachable and writable"
        if "password" in first.lower():
            remedy = password_remedy(url, "study.storage", "--storage")
        raise ClusterError(
            f"study storage {without_password(url)}: {redacted(first, url)}. Nothing was lost: "
            f"{remedy}, then run the same command again."
        ) from error
