"""What is kept and shown of a URL has no part of its password, and still names the same place."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from mir.errors import ConfigError
from sweeps.secrets import has_password, redacted, without_password
from sweeps.storage import check_storage

MASKED = {
    "postgresql://u:hunter2@h/db": "postgresql://u@h/db",
    "postgresql://me@corp:hunter2@host/db": "postgresql://me@corp@host/db",
    "postgresql://u:two words@h/db": "postgresql://u@h/db",
    "postgresql://u:a/b@h:5432/db": "postgresql://u@h:5432/db",
    "postgresql://u:1/b@h/db": "postgresql://u@h/db",
    "postgresql://u:s3@x:cret@h/db": "postgresql://u@h/db",
    "postgresql://u:pw@h/db@x?a=b@c": "postgresql://u@h/db@x?a=b@c",
    "postgresql+psycopg://u:pw@[::1]:5432/db": "postgresql+psycopg://u@[::1]:5432/db",
    "postgresql://h/db?user=u&password=secret": "postgresql://h/db?user=u&password=",
    "postgresql://h/db?password=a%26b&sslmode=on": "postgresql://h/db?password=&sslmode=on",
    "mysql://u:%40pw@h/db?passwd=x": "mysql://u@h/db?passwd=",
    "mssql://?odbc_connect=UID%3Du%3BPWD%3Dx%3BA%3D1": "mssql://?odbc_connect=UID%3Du%3BPWD%3D%3BA%3D1",
    "http://me:hunter2@host:5000": "http://me@host:5000",
    "http://u:p@ss@host:5000": "http://u@host:5000",
    "HTTPS://u:p w@host/x@y": "HTTPS://u@host/x@y",
    "http://me:sec/ret@h:1": "http://me@h:1",
}  # fmt: skip
KEPT = (
    "sqlite:////home/me@corp/a:b/study.db",
    "sqlite:///C:/me@corp/study.db",
    "memory:",
    "/data/mlruns",
    "databricks://profile:prefix",
    "postgresql://me@corp@host/db",
    "http://host:5000/x@y",
    "http://me@host:5000/x:y@z",
    "http://[::1]:5000/x@y",
    "http://me@[::1]:5000/x@y",
    "https://host/x?mail=a:b@c",
)


@pytest.mark.parametrize(("url", "shown"), MASKED.items())
def test_a_password_is_left_out(url, shown):
    assert without_password(url) == shown
    assert has_password(url) and not has_password(shown)


@pytest.mark.parametrize("url", KEPT)
def test_what_has_none_stays_as_it_is(url):
    assert without_password(url) == url


@pytest.mark.parametrize(
    "url", [url for url in MASKED if "sql" in url and "?" not in url and "cret" not in url]
)
def test_sqlalchemy_connects_to_the_same_place(url):
    assert make_url(without_password(url)) == make_url(url)._replace(password=None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no 'nosuch://me:p@ss@h/db' here", "no 'nosuch://me@h/db' here"),
        ("cannot say p@ss to h", "cannot say *** to h"),
        ("tried postgresql://u:other@h/db", "tried postgresql://u@h/db"),
        ("tried x://h/db?password=other", "tried x://h/db?password="),
    ],
)
def test_what_engines_say_has_no_password(text, shown):
    assert redacted(text, "nosuch://me:p@ss@h/db") == shown


def test_an_encoded_password_is_known_decoded():
    assert redacted("refused p@ss", "mysql://u:p%40ss@h/db") == "refused ***"


def test_what_a_parser_quotes_of_a_password_is_not_repeated():
    with pytest.raises(ConfigError, match="%40 %3A %2F") as caught:
        check_storage("postgresql://u:s3@x:cret@h/db")
    assert "postgresql://u@h/db" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("s3", "cret"))
