"""The feature cache: same numbers with and without it, safe under kills and crowds, bounded."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_job import events_of, make_world, spec_of

from jobs.events import Finished, Scored
from jobs.features.cache import open_features
from jobs.features.scope import picture_name, scope_of
from jobs.features.store import FeatureStore
from jobs.model.build import build_model
from jobs.place import Place

SHAPE = (3, 5)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def store_at(folder, limit=10**6, dtype=torch.float32):
    return FeatureStore(Path(folder), "scope", SHAPE, dtype, limit)


def files_of(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_stored_comes_back_bit_for_bit(tmp_path, dtype):
    value = torch.randn(SHAPE).to(dtype)
    value[0, 0] = float("nan")
    assert store_at(tmp_path, dtype=dtype).get("ab12") is None
    assert store_at(tmp_path, dtype=dtype).put("ab12", value)
    found = store_at(tmp_path, dtype=dtype).get("ab12")
    assert found.dtype == dtype and torch.equal(found.view(torch.uint8), value.view(torch.uint8))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: b"",
        lambda whole: whole + b"x",
        lambda whole: whole[:10] + bytes([whole[10] ^ 1]) + whole[11:],
        lambda whole: bytes([whole[0] ^ 1]) + whole[1:],
    ],
)
def test_a_damaged_entry_counts_as_absent_and_is_written_anew(tmp_path, damage, caplog):
    store, value = store_at(tmp_path), torch.randn(SHAPE)
    store.put("ab12", value)
    (file,) = files_of(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert store.get("ab12") is None and "damaged" in caplog.text
    store.put("ab12", value)
    assert torch.equal(store.get("ab12"), value)


def test_the_limit_holds_over_all_scopes_and_is_said_once(tmp_path, caplog):
    value = torch.zeros(SHAPE)
    size = store_at(tmp_path).entry_bytes
    first = store_at(tmp_path, limit=3 * size)
    assert [first.put(f"aa{i}", value) for i in range(2)] == [True, True]
    other = FeatureStore(tmp_path, "other", SHAPE, torch.float32, 3 * size)
    assert [other.put(f"bb{i}", value) for i in range(3)] == [True, False, False]
    assert sum(file.stat().st_size for file in files_of(tmp_path)) == 3 * size
    assert caplog.text.count("raise model.feature_cache_gib") == 1
    assert torch.equal(first.get("aa1"), value)
    assert first.room_for(3) and not first.room_for(4)


def test_what_a_killed_writer_left_is_neither_read_nor_kept_for_ever(tmp_path):
    store = store_at(tmp_path)
    store.put("ab12", torch.zeros(SHAPE))
    leftover = files_of(tmp_path)[0].with_name(".ab34.unfinished")
    leftover.write_bytes(b"half")
    assert store_at(tmp_path).put("ab56", torch.zeros(SHAPE)) and leftover.exists()
    os.utime(leftover, (0, 0))
    assert store_at(tmp_path).put("ab78", torch.zeros(SHAPE)) and not leftover.exists()


def test_a_disk_that_cannot_be_written_ends_storing_and_not_the_job(tmp_path, caplog):
    (tmp_path / "scope").write_text("a file where the folder should be")
    store = store_at(tmp_path)
    assert not store.put("ab12", torch.zeros(SHAPE))
    assert "nothing more is stored" in caplog.text
    assert store.get("ab12") is None


def _write_for_ever(folder):
    store = store_at(folder, limit=10**9)
    for turn in range(10**6):
        name = f"{turn % 40:02d}entry"
        store.put(name, torch.full(SHAPE, float(turn % 40)))


def test_many_writers_killed_at_any_moment_leave_only_whole_entries(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_for_ever, args=(tmp_path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    store, seen = store_at(tmp_path), 0
    until = time.monotonic() + 20
    while seen < 400 and time.monotonic() < until:
        for entry in range(40):
            found = store.get(f"{entry:02d}entry")
            if found is not None:
                seen += 1
                assert bool((found == entry).all())
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert seen >= 400
    for file in files_of(tmp_path):
        if not file.name.startswith("."):
            assert bool((store.get(file.name) == int(file.name[:2])).all())


def test_a_scope_names_everything_that_decides_the_features(base):
    def scope(**settings):
        built = build_model(spec_of(base, model=settings).model, seed=0)
        return scope_of(built.model.vision, built.image_processor)

    plain = scope()
    assert plain == scope(projector="linear", moca={})
    assert len({plain, scope(select_layer=-2), scope(class_token="keep")}) == 3
    built = build_model(spec_of(base).model, seed=0)
    built.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert scope_of(built.model.vision, built.image_processor) != plain
    built = build_model(spec_of(base).model, seed=0)
    with torch.no_grad():
        next(built.model.vision.parameters()).flatten()[0] += 1e-3
    assert scope_of(built.model.vision, built.image_processor) != plain
    assert scope_of(built.model.vision.bfloat16(), built.image_processor) != plain


def test_pictures_are_named_by_content():
    red = Image.new("RGB", (4, 6), "red")
    assert picture_name(red) == picture_name(red.copy())
    others = [red.transpose(Image.Transpose.ROTATE_90), Image.new("RGB", (4, 6), "blue")]
    assert len({picture_name(image) for image in [red, red.convert("L"), *others]}) == 4


def test_there_is_no_cache_where_the_encoder_learns_or_it_is_off(base, tmp_path):
    def cache(**settings):
        spec = spec_of(base, model=settings)
        return open_features(spec, build_model(spec.model, 0), Place(folder=tmp_path))

    assert cache() is not None
    assert cache(feature_cache="off") is None
    assert cache(trainable={"vision_from": 2}) is None
    assert cache(trainable="everything") is None
    assert cache(trainable="projector+language") is not None


def weights_of(folder):
    from safetensors.torch import load_file

    newest = max((folder / "checkpoints").glob("samples-*"))
    return load_file(newest / "weights.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_job_is_the_same_bit_for_bit_without_with_a_cold_and_with_a_warm_cache(
    base, tmp_path, precision
):
    shared = tmp_path / "study"
    ends, scores = {}, {}
    for name, cache in [("off", "off"), ("cold", "auto"), ("warm", "auto")]:
        spec = spec_of(base, model={"feature_cache": cache}, deepspeed={"precision": precision})
        before = len(files_of(shared))
        events = events_of(spec, tmp_path / name, shared=shared)
        assert isinstance(events[-1], Finished), events[-1]
        ends[name] = weights_of(tmp_path / name)
        scores[name] = [(e.mir["mir"], e.guard) for e in events if isinstance(e, Scored)]
        stored = len(files_of(shared)) - before
        assert (stored > 0) == (name == "cold")
    for name in ("cold", "warm"):
        assert scores[name] == scores["off"]
        assert all(torch.equal(ends[name][key], value) for key, value in ends["off"].items())


def test_a_cache_too_small_for_the_sources_serves_scoring_alone(base, tmp_path):
    entry = 4 + 4 * 4 * 16
    spec = spec_of(base, model={"feature_cache_gib": 13 * entry / 2**30})
    events = events_of(spec, tmp_path / "job", shared=tmp_path / "study")
    assert isinstance(events[-1], Finished)
    assert 1 <= len(files_of(tmp_path / "study")) <= 13
    whole = spec_of(base, model={"feature_cache": "off"})
    events_of(whole, tmp_path / "other")
    found, expected = weights_of(tmp_path / "job"), weights_of(tmp_path / "other")
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_named_folder_is_used_and_damage_in_it_changes_nothing(base, tmp_path):
    spec = spec_of(base, model={"feature_cache": str(tmp_path / "kept")})
    events_of(spec, tmp_path / "first")
    files = files_of(tmp_path / "kept")
    assert files
    for file in files[::2]:
        file.write_bytes(b"\0" * file.stat().st_size)
    events_of(spec, tmp_path / "second")
    first, second = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    assert all(torch.equal(first[key], second[key]) for key in first)
