"""Passwords in URLs: what is kept, printed or logged of a recipe is read by others than its owner.

Storages and tracking databases are read as SQLAlchemy reads them, tracking servers as HTTP does.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from sweeps.spec import SweepSpec

UNREADABLE = "its host and port cannot be read; write @ : / in a password as %40 %3A %2F"
"""Said in place of a parser's own words, which quote the part that it took for the port."""

# Up to the last @ before the path; where no port follows the colon, a / may be the password's.
_SERVER = re.compile(r"https?://[^:/?#\[]*(:[^/?#]*|:(?!\d*(?:[/?#]|$)).*)@", re.I | re.S)
# SQLAlchemy's password ends with the first @; a host has none, so what has one is the password's.
_DATABASE = re.compile(r"(?!https?:)[\w+.-]+://[^:/]*(:[^@]*(?:@[^@/?]*)*)@", re.I)
_OPTION = re.compile(
    r"((?:[?&;]|%3B)[\w.-]*(?:password|passwd|pwd)(?:=|%3D))((?:(?!%3B)[^&;#\n])*)", re.I
)
_IN_TEXT = re.compile(r"(://[^\s:/]*):\S*@")


def without_password(url: str) -> str:
    """A URL as it may be kept and shown: what it names stays, the user's name too."""
    found = _with_password(url)
    if found is not None:
        url = url[: found.start(1)] + url[found.end(1) :]
    return _OPTION.sub(r"\1", url)


def has_password(url: str) -> bool:
    """Whether the URL itself brings a password."""
    return without_password(url) != url


def password_remedy(url: str, field: str, option: str) -> str:
    """How to give the password that a database asks for; the event log keeps none.

    field: of the recipe, option: of `mirsweep rebuild`.
    """
    verb = "correct" if has_password(url) else "give"
    also = " or set PGPASSWORD" if verb == "give" and url.startswith("postgres") else ""
    return f"{verb} the password in its URL ({field}, or {option} of `mirsweep rebuild`){also}"


def redacted(text: str, url: str = "") -> str:
    """What an engine says, as it may be shown. url: the one that it was given, if known."""
    found = _with_password(url)
    secrets = [option[1] for option in _OPTION.findall(url)]
    if found is not None:
        secrets.append(found[1][1:])
    if url:
        text = text.replace(url, without_password(url))
    for secret in filter(None, [*secrets, *map(unquote, secrets)]):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return _OPTION.sub(r"\1", _IN_TEXT.sub(r"\1@", text))


def recorded(spec: SweepSpec) -> SweepSpec:
    """A sweep as it may be kept and shown."""
    storage, uri = spec.study.storage, spec.tracking.uri
    study = {"storage": None if storage is None else without_password(storage)}
    tracking = {"uri": None if uri is None else without_password(uri)}
    return spec.model_copy(
        update={
            "study": spec.study.model_copy(update=study),
            "tracking": spec.tracking.model_copy(update=tracking),
        }
    )


def _with_password(url: str) -> re.Match[str] | None:
    return _SERVER.match(url) or _DATABASE.match(url)
