"""The loader: the same samples on any number of ranks and after any interruption."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
import torch
from data_files import Characters, Colours, write_listing
from PIL import Image

from jobs.data.batch import collate
from jobs.data.errors import too_many_bad
from jobs.data.loader import BatchLoader
from jobs.data.sample import Sample
from jobs.engine.deepspeed_engine import StepResult
from jobs.meter import Meter
from jobs.spec import DataSpec
from mir.errors import ConfigError, DataError


@pytest.fixture
def open_loader(tmp_path):
    """Open loaders over two listings; every one is closed at the end of the test."""
    opened = []

    def open_one(
        *, bad=(), rank=0, world_size=1, start=0, batch=8, mixture=None,
        workers=1, group=1, max_epochs=None, samples=None, seed=5,
    ):  # fmt: skip
        sources = {}
        for name, count in (("a", 30), ("b", 11)):
            gone = bad if name == "a" else ()
            listing = tmp_path / f"{name}-{len(gone)}" / "data.jsonl"
            if not listing.exists():  # never under the eyes of a loader that reads already
                write_listing(listing.parent, count, bad=gone)
            sources[name] = {"kind": "jsonl", "path": str(listing)}
        spec = DataSpec(
            sources=sources,
            mixture=mixture or {"a": 0.7, "b": 0.3},
            validation=sources["b"],
            max_bad_fraction=1.0,
            group_by_length=group,
            max_epochs=max_epochs or {},
        )
        loader = BatchLoader(
            spec,
            seed=seed,
            tokenizer=Characters(),
            image_processor=Colours(),
            global_batch=batch,
            rank=rank,
            world_size=world_size,
            start_samples=start,
            samples=samples,
            workers=workers,
        )
        opened.append(loader)
        return loader

    yield open_one
    for loader in opened:
        loader.close()


def captions(loader, batches):
    """Captions of the next batches, as text."""
    found = []
    for _ in range(batches):
        batch = next(loader)
        for ids, mask in zip(batch.caption_ids, batch.caption_mask, strict=True):
            *text, end = ids[mask].tolist()
            assert end == Characters.eos_token_id
            found.append("".join(map(chr, text)))
    return found


@pytest.mark.parametrize("bad", [(), (3, 4, 5, 17)])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_end_to_end_are_one_rank(open_loader, world_size, bad):
    whole = open_loader(bad=bad)
    ranks = [open_loader(bad=bad, rank=r, world_size=world_size) for r in range(world_size)]
    for _ in range(8):
        assert captions(whole, 1) == [text for rank in ranks for text in captions(rank, 1)]


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_nothing(open_loader, workers, group):
    """Nor does where a run was resumed, how many ranks share it, or which of them are bad."""
    settings = {"bad": (3, 4, 17), "group": group}
    whole = captions(open_loader(**settings), 12)
    assert captions(open_loader(**settings, workers=workers), 12) == whole
    ranks = [open_loader(**settings, workers=workers, rank=r, world_size=2) for r in range(2)]
    ends = [captions(rank, 12) for rank in ranks]
    assert [t for n in range(12) for end in ends for t in end[4 * n : 4 * n + 4]] == whole
    assert captions(open_loader(**settings, workers=workers, start=40), 7) == whole[40:]


def test_an_error_of_a_reader_comes_where_its_batch_would(open_loader):
    """Whatever the number of readers, the five good batches before it are handed out first."""
    handed = []
    for workers in (1, 4):
        loader = open_loader(
            bad=tuple(range(30)), workers=workers, mixture={"a": 0.02, "b": 0.98}, seed=4
        )
        with pytest.raises(DataError, match=r"data\.sources\.a: none of its 30"):
            while True:
                handed.append((workers, captions(loader, 1)))
    first = [texts for workers, texts in handed if workers == 1]
    assert first == [texts for workers, texts in handed if workers == 4] != []


@pytest.mark.parametrize("start", [8, 40, 72])
def test_a_start_in_the_middle_equals_the_uninterrupted_stream(open_loader, start):
    assert captions(open_loader(bad=(7, 8)), 14)[start:] == captions(
        open_loader(bad=(7, 8), start=start), 14 - start // 8
    )


def test_a_bad_sample_is_replaced_by_the_next_good_one_of_its_source(open_loader):
    good, bad = captions(open_loader(), 5), captions(open_loader(bad=(3, 4)), 5)
    replaced = {before: after for before, after in zip(good, bad, strict=True) if before != after}
    assert replaced  # 28 of 40 samples come from this source of 30
    assert set(replaced.values()) == {"caption 5"}
    assert set(replaced) <= {"caption 3", "caption 4"}


def test_bad_samples_are_counted_with_the_batches_that_needed_them(open_loader):
    loader = open_loader(bad=(3, 4, 20), mixture={"a": 1.0})
    counts = []
    for _ in range(15):  # four epochs of 30
        next(loader)
        counts.append(sum(s.count for s in loader.take_skipped()))
    assert sum(counts) == 4 * 3  # 3 is followed by 4, which counts at its own turn alone
    assert loader.take_skipped() == []


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_visit_of_a_bad_sample_counts_once_on_any_number_of_ranks(open_loader, world_size):
    """Two epochs of a source of which all but two are bad: 28 of 30 visits."""
    bad = tuple(n for n in range(30) if n not in (11, 12))
    settings = {"bad": bad, "mixture": {"a": 1.0}, "batch": 4, "world_size": world_size}
    ranks = [open_loader(**settings, rank=rank) for rank in range(world_size)]
    for loader in ranks:
        captions(loader, 15)
    assert sum(s.count for loader in ranks for s in loader.take_skipped()) == 2 * 28


def test_a_stand_in_that_is_bad_too_counts_at_its_own_turn_alone(open_loader):
    """10 of 30 in a row: a stand-in for the first is looked for ten times."""
    loader = open_loader(mixture={"a": 1.0}, batch=30, bad=tuple(range(10)))
    captions(loader, 33)
    assert loader.bad == 330
    assert sum(s.count for s in loader.take_skipped()) == 330
    assert loader.bad == 0


@pytest.mark.parametrize(
    ("bad", "reads", "limit", "too_many"),
    [(10, 64, 0.01, False), (11, 64, 0.01, True), (11, 1099, 0.01, True), (11, 1100, 0.01, False),
     (1, 8, 0.0, True), (0, 8, 0.0, False), (2000, 2000, 1.0, False)],
)  # fmt: skip
def test_bad_samples_are_a_share_of_a_thousand_reads_at_least(bad, reads, limit, too_many):
    assert too_many_bad(bad, reads, limit) is too_many


def test_what_is_skipped_names_source_and_reason(open_loader):
    loader = open_loader(bad=tuple(range(1, 30)), mixture={"a": 1.0}, batch=30)
    next(loader)
    (skipped,) = loader.take_skipped()
    assert (skipped.source, skipped.reason, skipped.count) == ("a", "image missing", 29)


def test_a_source_without_one_good_sample_is_named(open_loader):
    loader = open_loader(bad=tuple(range(30)))
    with pytest.raises(DataError, match=r"data\.sources\.a: none of its 30 samples can be used"):
        captions(loader, 20)
    with pytest.raises(DataError, match="none of its 30"):  # and it stays ended
        next(loader)


def test_a_batch_that_ranks_cannot_share_is_refused(open_loader):
    with pytest.raises(
        ConfigError, match=r"optim\.global_batch: 8 .* 3 ranks: the nearest that can is 9"
    ):
        open_loader(world_size=3)


def test_closing_ends_the_threads_at_once_and_twice(open_loader):
    loader = open_loader(workers=3)
    next(loader)
    assert [t for t in threading.enumerate() if t.name.startswith("batch-loader")]
    loader.close()
    loader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batch-loader")]


def test_the_wait_is_that_for_the_batches_since_it_was_last_taken(open_loader):
    loader = open_loader()
    captions(loader, 3)
    assert loader.take_wait() > 0
    assert loader.take_wait() == 0


def test_the_share_of_waiting_is_of_the_time_spent_on_steps():
    """Scores and saves between two reports, however long, are no part of it."""
    result = StepResult(loss=1.0, grad_norm=1.0, learning_rate=0.1, stop=None)
    meter = Meter(samples=0, trained_s=0.0)
    meter.add(3.0)
    meter.add(1.0)
    assert meter.read(16, result, waited_s=1.0).loader_wait == 0.25
    meter.add(2.0)
    assert meter.read(24, result, waited_s=2.0).loader_wait == 1.0
    assert meter.trained_s == 6.0


def test_grouped_batches_hold_the_same_samples_with_less_padding(open_loader):
    window = 10
    plain, grouped = open_loader(seed=1), open_loader(seed=1, group=window)
    lengths = {}
    for name, loader in (("plain", plain), ("grouped", grouped)):
        texts = [captions(loader, 1) for _ in range(window)]
        lengths[name] = [[len(t) for t in batch] for batch in texts]
        lengths[name + " all"] = sorted(t for batch in texts for t in batch)
    assert lengths["plain all"] == lengths["grouped all"]
    spread = {n: sum(max(b) - min(b) for b in lengths[n]) for n in ("plain", "grouped")}
    assert spread["grouped"] < spread["plain"]
    assert lengths["grouped"] != sorted(lengths["grouped"])  # no course from short to long


def test_caps_by_epochs_hold_over_the_whole_run(open_loader):
    """11 samples of b at most twice in 160; without the cap it would be seen 80 times."""
    settings = {"mixture": {"a": 0.5, "b": 0.5}, "samples": 160}
    loader = open_loader(**settings, max_epochs={"b": 2})
    seen = captions(loader, 20)
    free = captions(open_loader(**settings), 20)
    assert early(seen) <= (22 + 4) + 11 * 5 < early(free)  # the rest comes from a: 138 of 30


def early(seen):
    """Visits of the first eleven captions, which both sources have."""
    counts = Counter(seen)
    return sum(counts[f"caption {n}"] for n in range(11))


def sample(caption):
    return Sample(image=Image.new("RGB", (2, 2), (9, 8, 7)), caption=caption, key="k")


def test_collate_ends_cuts_and_pads_captions():
    batch = collate([sample("ab"), sample("abcdef")], Characters(), Colours(), max_tokens=4)
    assert batch.caption_ids.tolist() == [[97, 98, 1, 0], [97, 98, 99, 100]]
    assert batch.caption_mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.caption_ids.dtype == torch.long
    assert batch.pixel_values[:, :, 0, 0].tolist() == [[9, 8, 7]] * 2
    assert len(batch) == 2


def test_padding_falls_back_to_the_end_token_of_tokenizers_without_one():
    tokenizer = Characters()
    tokenizer.pad_token_id = None
    batch = collate([sample("a"), sample("abc")], tokenizer, Colours(), max_tokens=9)
    assert batch.caption_ids[0].tolist() == [97, 1, 1, 1]
    assert batch.caption_mask[0].tolist() == [True, True, False, False]


def test_the_first_rank_tells_how_many_entries_have_no_picture(tmp_path, caplog):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    talk = {"conversations": [{"from": "gpt", "value": "c"}]}
    entries = [talk, *[{"image": "a.png", **talk}] * 8, talk]
    (tmp_path / "l.json").write_text(json.dumps(entries))
    source = {"kind": "llava", "path": str(tmp_path / "l.json")}
    spec = DataSpec(sources={"mix": source}, validation=source)
    for rank in (1, 0):
        loader = BatchLoader(
            spec, seed=0, tokenizer=Characters(), image_processor=Colours(), global_batch=8,
            rank=rank, world_size=2,
        )  # fmt: skip
        for _ in range(20):
            next(loader)
        loader.close()
        assert loader.take_skipped() == []
        told = ["data.sources.mix: 2 entries have no picture and are left out"]
        assert caplog.messages == ([] if rank else told)
