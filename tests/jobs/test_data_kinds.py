"""Every kind of source keeps the same contract, on this machine and in a store."""

from __future__ import annotations

import json
import os
import random
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import data_kinds
import pytest
from data_kinds import BAD, CAPTIONS, KINDS, add_member, colour, png, settings_of, upload

from jobs.data import build, listing, llava
from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.spec import SourceSpec
from jobs.spec.data import SourceKind
from mir.errors import ClusterError, ConfigError, DataError

SYNTHETIC = {"scenes", "questions", "vqa"}  # their contracts are tested where they are made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Arrow copies of parquet files go where the test's other files go."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=["local", "file", "memory"])
def root_of(request, tmp_path):
    """Write a kind into one of the stores; its settings."""
    import fsspec

    def make(kind):
        folder = tmp_path / kind
        if request.param != "memory":
            return settings_of(kind, folder, f"file://{folder}" if request.param == "file" else "")
        settings = settings_of(kind, folder, f"memory://test/{kind}")
        upload(folder, f"memory://test/{kind}")
        return settings

    yield make
    fsspec.filesystem("memory").store.clear()


def test_every_kind_that_a_recipe_may_name_can_be_opened():
    assert set(typing.get_args(SourceKind)) == set(build.KINDS) == set(KINDS) | SYNTHETIC


def test_every_field_is_read_by_some_kind():
    read = {name for kind in build.KINDS.values() for name in kind.reads}
    assert read == set(SourceSpec.model_fields) - {"kind", "size"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_declared_size_is_held_against_what_is_there(tmp_path, kind):
    settings = settings_of(kind, tmp_path / "data")
    assert len(open_source(SourceSpec(**settings, size=len(CAPTIONS)))) == len(CAPTIONS)
    with pytest.raises(ConfigError, match=r"a\.size: 4 is declared, but .* holds 5 samples: set"):
        open_source(SourceSpec(**settings, size=4), "a")


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_gives_its_samples_and_nothing_else(root_of, kind):
    source = open_source(SourceSpec(**root_of(kind)))
    assert len(source) == len(CAPTIONS)
    keys = set()
    for n, caption in enumerate(CAPTIONS):
        if n == BAD:
            for read in (source.__getitem__, source.caption):
                with pytest.raises(BadSample, match="caption empty"):
                    read(n)
            continue
        sample = source[n]
        assert sample.caption == caption == source.caption(n)
        assert (sample.image.mode, sample.image.size) == ("RGB", (5, 4))
        assert sample.image.getpixel((2, 2)) == colour(n)
        keys.add(sample.key)
    assert len(keys) == len(CAPTIONS) - 1
    for outside in (-1, len(CAPTIONS)):
        for read in (source.__getitem__, source.caption):
            with pytest.raises(IndexError):
                read(outside)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_disturb_each_other(tmp_path, kind):
    source = open_source(SourceSpec(**settings_of(kind, tmp_path / "data")))
    good = [n for n in range(len(CAPTIONS)) if n != BAD]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda n: (source[n].caption, source.caption(n)), good * 20))
    assert read == [(CAPTIONS[n], CAPTIONS[n]) for n in good * 20]


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_is_not_there_is_refused(root_of, kind):
    settings = root_of(kind) | {"path": root_of.__name__ + "/nowhere"}
    with pytest.raises(ConfigError, match=r"a\.path: '.*nowhere' is no (file|folder): check"):
        open_source(SourceSpec(**settings), "a")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "datasets"])
def test_fields_of_other_names_are_named_where_they_are_missing(tmp_path, kind):
    settings = settings_of(kind, tmp_path / "data") | {"caption_field": "words"}
    with pytest.raises((ConfigError, DataError), match=r"'words'.*(image|picture)") as caught:
        open_source(SourceSpec(**settings), "a")
    assert "caption_field" in str(caught.value)


def test_unknown_stores_and_missing_packages_are_named(monkeypatch):
    for path in ("ftp://a/b", "memory://a::ftp://b/c"):
        with pytest.raises(ConfigError, match=r"a\.path: .* one of file://, memory://, s3://, gs"):
            open_source(SourceSpec(kind="jsonl", path=path), "a")
    known = sys.modules["fsspec.registry"]._registry
    for package, protocol in (("s3fs", "s3"), ("gcsfs", "gs")):
        monkeypatch.delitem(known, protocol, raising=False)  # another test may have opened one
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for path in ("s3://bucket/data.jsonl", "gs://bucket/data.jsonl"):
        with pytest.raises(ConfigError, match=r"pip install 'mirsweep\[cloud\]'"):
            open_source(SourceSpec(kind="jsonl", path=path), "a")


@pytest.mark.parametrize("root_of", ["memory"], indirect=True)
def test_what_a_killed_fetch_has_left_is_removed_by_a_later_one(root_of, tmp_path):
    """Gigabytes, for ever; one that may still be under way is let be."""
    cache = tmp_path / "cache" / "mirsweep"
    cache.mkdir(parents=True)
    old, new = (cache / f".{n * 32}.parquet.{n * 32}" for n in "01")
    for left in (old, new):
        left.write_bytes(b"PAR1 half")
    os.utime(old, times=(0, 0))
    assert len(open_source(SourceSpec(**root_of("parquet")))) == len(CAPTIONS)
    assert [path for path in cache.iterdir() if path.name[0] == "."] == [new]


def test_a_store_that_fails_is_no_bad_sample(tmp_path, monkeypatch):
    import fsspec

    settings = settings_of("jsonl", tmp_path / "data", "memory://failing")
    upload(tmp_path / "data", "memory://failing")
    source = open_source(SourceSpec(**settings))
    memory = fsspec.filesystem("memory")
    memory.rm("memory://failing/pictures/1.png")
    with pytest.raises(BadSample, match="image missing"):
        source[1]

    def broken(*args, **options):
        raise ConnectionError("gone")

    monkeypatch.setattr(type(memory), "cat_file", broken)
    with pytest.raises(ClusterError, match=r"0\.png: the store failed \(ConnectionError: gone\)"):
        source[0]
    memory.store.clear()


@pytest.mark.parametrize("kind", ["jsonl", "webdataset", "parquet"])
def test_a_store_that_lets_nobody_in_says_so(monkeypatch, kind):
    import fsspec

    def closed(*args, **options):
        raise PermissionError("Access Denied\nrequest 123")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", closed)
    with pytest.raises(ConfigError, match=r"cannot be read \(PermissionError: Access Denied r"):
        open_source(SourceSpec(kind=kind, path="memory://closed/data"), "data.sources.a")


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "x/../../secret.png"])
def test_no_name_climbs_out_of_a_remote_folder(name):
    import fsspec

    from jobs.data.store import open_folder

    memory = fsspec.filesystem("memory")
    memory.pipe("memory://climb/secret.png", png(0))
    memory.pipe("memory://climb/in/a.png", png(1))
    folder = open_folder("memory://climb/in", "f")
    assert folder.picture("x/../a.png", "k").getpixel((0, 0)) == colour(1)
    with pytest.raises(BadSample, match="leaves the image folder"):
        folder.picture(name, "k")
    memory.store.clear()


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_a_long_list_reads_the_same_in_stretches_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(llava, "_CHUNK", chunk)
    source = open_source(SourceSpec(**settings_of("llava", tmp_path / "data")))
    assert [source.caption(n) for n in (0, 1, 2, 4)] == [CAPTIONS[n] for n in (0, 1, 2, 4)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1} {"b": 2}]', r"entry 0: not JSON \(neither"),
        (b'[{"a": 1}', r"entry 0: not JSON \(neither"),
        (b'[{"a": 1}, ', r"entry 1: not JSON"),
        (b'[{"a": 1}]]', "more follows after the list's end"),
        (b'[{"a": 1, "a": 2}]', "field 'a' stands twice"),
        (b'[{"a": "\xff"}]', "entry 0: not UTF-8"),
        (b'[7, "\xff", {"a": "\xff"}]', "entry 0: int instead of an object"),
        (b"", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"a', "not JSON"),
        (b"[]", "holds no samples"),
    ],
)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_list_that_breaks_off_is_refused(tmp_path, monkeypatch, content, message, chunk):
    monkeypatch.setattr(llava, "_CHUNK", chunk)
    monkeypatch.setattr(listing, "MAX_ENTRY", 1000)
    (tmp_path / "l.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(SourceSpec(kind="llava", path=str(tmp_path / "l.json")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_bad_entries_of_a_list_are_bad_samples(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(llava, "_CHUNK", chunk)
    good = b'{"image": "0.png", "conversations": [{"from": "gpt", "value": "c"}]}'
    bad = {
        b'{"image": "0.png", "conversations": "Gr\xf6\xdfe"}': "entry is not UTF-8",
        b'{"image": "0.png", "image": "1.png"}': "entry has a field twice",
        b'["a", {"b": "]"}]': "entry is not an object",
        b'"a \\" b"': "entry is not an object",
        b'{"image": "0\n.png"}': "entry is not JSON",
        b'{"image": ' + b"9" * 10_000 + b"}": "entry is not JSON",
    }
    (tmp_path / "l.json").write_bytes(b"[" + b" ,\n".join([*bad, good]) + b"]")
    data_kinds.pictures(tmp_path)
    source = open_source(
        SourceSpec(kind="llava", path=f"{tmp_path}/l.json", images=f"{tmp_path}/pictures")
    )
    assert len(source) == len(bad) + 1
    for n, reason in enumerate(bad.values()):
        with pytest.raises(BadSample, match=rf"l\.json\[{n}\]: {reason}"):
            source[n]
    assert source[len(bad)].caption == "c"


def test_tars_that_are_none_are_refused(tmp_path):
    folder = tmp_path / "data"
    data_kinds.webdataset(folder)
    whole = (folder / "a-00.tar").read_bytes()
    for content in (b"", b"x" * 2000, whole[:700], b"\x1f\x8b" + whole):
        (folder / "a-00.tar").write_bytes(content)
        with pytest.raises(DataError, match=r"a-00\.tar: no whole uncompressed tar"):
            open_source(SourceSpec(kind="webdataset", path=str(folder)))


def test_a_range_of_shards_is_bounded_and_complete(tmp_path):
    data_kinds.webdataset(tmp_path / "data")
    for span, message in (
        ("{00..99}", "is no file"), ("{5..1}", "stands for 0 files"), ("{0..9999999}", "give 1 to"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            open_source(SourceSpec(kind="webdataset", path=f"{tmp_path}/data/a-{span}.tar"))
    (tmp_path / "data" / "b.tar").mkdir()
    (tmp_path / "data" / "c.tar").symlink_to(tmp_path / "data" / "a-01.tar")
    for path in (f"{tmp_path}/data/*.tar", f"{tmp_path}/data/", f"{tmp_path}/data/?*.tar"):
        assert len(open_source(SourceSpec(kind="webdataset", path=path))) == 5 + 2


def test_links_and_halves_in_a_tar_are_no_samples(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        add_member(tar, "0.txt", b"a link")
        add_member(tar, "1.png", png(1))
        add_member(tar, "2.png", png(2))
        add_member(tar, "2.txt", b"gr\xfcn")
        add_member(tar, "3.png", png(2))
        add_member(tar, "3.json", b"[1]")
        add_member(tar, "4.png", png(2))
        add_member(tar, "4.json", b"{")
        add_member(tar, "5.png", png(2))
        add_member(tar, "5.txt", b"x" * 10_000_000)
        add_member(tar, "._6.png", b"rubbish of a Mac")
    source = open_source(SourceSpec(kind="webdataset", path=str(tmp_path / "a.tar")))
    reasons = [
        "no picture in the tar", "no caption in the tar", "caption is not UTF-8",
        "caption is not a string", "metadata is not JSON", "caption too long",
    ]  # fmt: skip
    assert len(source) == len(reasons)
    for n, reason in enumerate(reasons):
        with pytest.raises(BadSample, match=reason):
            source[n]


def test_pictures_of_a_table_may_lie_in_a_folder_and_nowhere_else(tmp_path):
    import datasets as hf

    data_kinds.pictures(tmp_path)
    rows = {"image": ["pictures/1.png", "../x.png", None, "/etc/passwd"], "caption": ["a"] * 4}
    hf.Dataset.from_dict(rows).to_parquet(tmp_path / "t.parquet")
    source = open_source(SourceSpec(kind="parquet", path=str(tmp_path / "t.parquet")))
    assert source[0].image.getpixel((0, 0)) == colour(1)
    reasons = {1: "leaves the image folder", 2: "no image in the row", 3: "leaves the image folder"}
    for n, reason in reasons.items():
        with pytest.raises(BadSample, match=reason):
            source[n]


def hostile_state(folder, outside):
    state = next(folder.rglob("state.json"))
    told = json.loads(state.read_text())
    told["_data_files"] = [{"filename": outside}]
    state.write_text(json.dumps(told))


def hostile_splits(folder, outside):
    splits = next(folder.rglob("dataset_dict.json"))
    splits.write_text(json.dumps({"splits": ["train", outside]}))


@pytest.mark.parametrize("spoil", [hostile_state, hostile_splits])
@pytest.mark.parametrize("absolute", [False, True])
def test_saved_data_sets_name_only_their_own_files(root_of, tmp_path, spoil, absolute):
    """On this machine and in a store: the file outside is a good one of this machine."""
    settings = root_of("datasets")
    with pytest.raises(ConfigError, match=r"a\.split: 'validation' is not in .*; it has: train"):
        open_source(SourceSpec(**settings, split="validation"), "a")
    secret = data_kinds.datasets(tmp_path / "other")["path"]
    secret = next((tmp_path / "other" / secret).rglob("*.arrow"))
    outside = secret if spoil is hostile_state else secret.parent
    spoil(
        tmp_path / "datasets", str(outside) if absolute else "../" * 30 + str(outside).lstrip("/")
    )
    if settings["path"].startswith("memory://"):
        upload(tmp_path / "datasets", "memory://test/datasets")
    with pytest.raises(DataError, match="lies outside") as caught:
        open_source(SourceSpec(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["saved/../../../climbed.json", "saved/train/../../climbed.json"])
def test_no_key_of_a_store_climbs_out_of_where_it_is_copied(tmp_path, monkeypatch, key):
    """Keys of a store are any text: written as they are they would land beside the copy."""
    import fsspec

    settings = settings_of("datasets", tmp_path / "datasets", "memory://keys")
    upload(tmp_path / "datasets", "memory://keys")
    memory = fsspec.filesystem("memory")
    listed = memory.find("memory://keys/saved")
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: [*listed, f"/keys/{key}"])
    with pytest.raises(DataError, match=r"climbed\.json'.* lies outside"):
        open_source(SourceSpec(**settings))
    memory.store.clear()


def test_an_unknown_store_is_refused_for_a_saved_data_set_too():
    with pytest.raises(ConfigError, match=r"a\.path: .* one of file://, memory://, s3://, gs"):
        open_source(SourceSpec(kind="datasets", path="ftp://a/b"), "a")


def test_tables_that_are_none_are_refused_in_one_line(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read .*: write it again") as caught:
        open_source(SourceSpec(kind="parquet", path=str(tmp_path / "t.parquet")))
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: cannot be read"):
        open_source(SourceSpec(kind="datasets", path=str(tmp_path / "empty")))


@pytest.mark.parametrize("kind", ["datasets", "parquet", "webdataset"])
def test_no_flipped_byte_of_a_file_ever_escapes(tmp_path, kind):
    """It is refused, or its samples are read or skipped."""
    rng = random.Random(0)
    settings = settings_of(kind, tmp_path / "data")
    files = [p for end in ("arrow", "parquet", "tar") for p in tmp_path.rglob(f"*.{end}")]
    refused = 0
    for _ in range(20):
        file = rng.choice(files)
        whole = file.read_bytes()
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 3, 10))):
            broken[rng.randrange(len(broken))] = rng.choice((0, 255, rng.randrange(256)))
        file.write_bytes(broken)
        try:
            source = open_source(SourceSpec(**settings))
            for n in range(len(source)):
                with suppress(BadSample):
                    assert source[n].image.mode == "RGB"
        except (DataError, ConfigError) as error:
            assert "\n" not in str(error)
            refused += 1
        file.write_bytes(whole)
    assert 0 < refused < 20
