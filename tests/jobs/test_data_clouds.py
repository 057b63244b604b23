"""Every kind of source through S3 and Google Cloud Storage, on emulators of both."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import fsspec
import pytest
from data_kinds import BAD, CAPTIONS, KINDS, colour, settings_of
from tiny_job import events_of, make_world, spec_of

from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.events import Finished, Skipped
from jobs.spec import SourceSpec
from mir.errors import ClusterError, ConfigError, DataError

BUCKET = "pictures"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def s3():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {**SETTINGS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    finally:
        server.stop()


@contextmanager
def gs():
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    # The emulator has no folders of their own, about which gcsfs would ask Google itself.
    folders = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    try:
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", **folders}
    finally:
        server.stop()


STORES = {"s3": s3, "gs": gs}


@contextmanager
def fresh(name):
    """fsspec keeps one client an address and process: none from before, none for after."""
    kind = fsspec.get_filesystem_class(name)
    kind.clear_instance_cache()
    try:
        yield
    finally:
        kind.clear_instance_cache()


def write(kind, folder, name):
    """Put one kind of source into a bucket; its settings."""
    system = fsspec.filesystem(name)
    if not system.exists(BUCKET):
        system.mkdir(BUCKET)
    root = f"{name}://{BUCKET}/{kind}"
    settings = settings_of(kind, folder, root)
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return settings


@pytest.fixture(scope="module", params=STORES)
def store(request, tmp_path_factory):
    """A running store with every kind of source in it; settings of a kind by its name."""
    with pytest.MonkeyPatch.context() as patch, STORES[request.param]() as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("store")
        with fresh(request.param):
            yield request.param, {k: write(k, folder / k, request.param) for k in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_in_a_cloud_gives_its_samples(store, kind):
    source = open_source(SourceSpec(**store[1][kind]))
    assert len(source) == len(CAPTIONS)
    for n, caption in enumerate(CAPTIONS):
        if n == BAD:
            with pytest.raises(BadSample, match="caption empty"):
                source[n]
            continue
        sample = source[n]
        assert sample.caption == caption
        assert sample.image.getpixel((2, 2)) == colour(n)


def test_readers_in_threads_do_not_disturb_each_other(store):
    source = open_source(SourceSpec(**store[1]["jsonl"]))
    good = [n for n in range(len(CAPTIONS)) if n != BAD]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda n: source[n].image.getpixel((2, 2)), good * 5))
    assert read == [colour(n) for n in good * 5]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_whole_job_trains_on_pictures_in_a_cloud(store, tmp_path):
    source = store[1]["jsonl"]
    spec = spec_of(
        make_world(tmp_path),
        data={"sources": {"a": source}, "validation": source, "validation_samples": 4,
              "max_bad_fraction": 1.0},
        optim={"samples": 8},
        score={"pairs": 4},
    )  # fmt: skip
    events = events_of(spec, tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    assert any(isinstance(e, Skipped) and e.reason == "caption empty" for e in events)


@pytest.mark.parametrize("kind", ["jsonl", "llava", "webdataset", "parquet", "datasets"])
@pytest.mark.parametrize("place", ["no-such-bucket/data", f"{BUCKET}/nowhere"])
def test_what_is_not_there_is_refused_in_one_line(store, kind, place):
    spec = SourceSpec(kind=kind, path=f"{store[0]}://{place}")
    with pytest.raises((ConfigError, DataError), match=place.partition("/")[2]) as refused:
        open_source(spec, "data.sources.a")
    assert "\n" not in str(refused.value)


def test_a_store_without_credentials_says_so(monkeypatch, tmp_path):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with fresh("s3"), pytest.raises(ConfigError, match="credentials") as refused:
        open_source(SourceSpec(kind="jsonl", path="s3://pictures/data.jsonl"), "data.sources.a")
    assert "your access to it" in str(refused.value) and "\n" not in str(refused.value)


async def no_pause(_seconds):
    """In the place of the growing pauses between attempts."""


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_goes_away_is_told_and_is_no_bad_sample(name, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # both would try again for half a minute
    monkeypatch.setattr(fsspec.get_filesystem_class(name), "retries", 1)
    at_once = SimpleNamespace(**{**vars(asyncio), "sleep": no_pause})
    monkeypatch.setattr("gcsfs.retry.asyncio", at_once)
    with STORES[name]() as environment, fresh(name):
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        settings = write("jsonl", tmp_path / "data", name)
        source = open_source(SourceSpec(**settings))
        assert source[0].caption == CAPTIONS[0]
    with pytest.raises(ClusterError, match="the store failed") as gone:
        source[1]
    with fresh(name), pytest.raises(ConfigError, match="check the address") as refused:
        open_source(SourceSpec(**settings), "data.sources.a")
    assert "\n" not in str(gone.value) + str(refused.value)
