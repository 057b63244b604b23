"""The loader: the same samples on any number of ranks and after any interruption."""

from __future__ import annotations

import threading

import pytest
import torch
from data_files import Characters, Colours, write_listing
from PIL import Image

from jobs.data.batch import collate
from jobs.data.loader import BatchLoader
from jobs.data.sample import Sample
from jobs.spec import DataSpec
from mir.errors import ConfigError, DataError


@pytest.fixture
def open_loader(tmp_path):
    """Open loaders over two listings; every one is closed at the end of the test."""
    opened = []

    def open_one(*, bad=(), max_bad=1.0, rank=0, world_size=1, start=0, batch=8, mixture=None):
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
            max_bad_fraction=max_bad,
        )
        loader = BatchLoader(
            spec,
            seed=5,
            tokenizer=Characters(),
            image_processor=Colours(),
            global_batch=batch,
            rank=rank,
            world_size=world_size,
            start_samples=start,
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
    assert sum(counts) == 4 * 4  # 3 is followed by 4, so it costs two reads
    assert loader.take_skipped() == []


def test_what_is_skipped_names_source_and_reason(open_loader):
    loader = open_loader(bad=tuple(range(1, 30)), mixture={"a": 1.0})
    next(loader)
    (skipped,) = loader.take_skipped()
    assert (skipped.source, skipped.reason) == ("a", "image missing")
    assert skipped.count > 50


def test_too_many_bad_samples_end_the_job_with_one_line(open_loader):
    loader = open_loader(bad=tuple(range(29)), max_bad=0.01)
    with pytest.raises(
        DataError, match=r"data\.max_bad_fraction: \d+ of \d+ .* 0\.01 .*image missing"
    ) as caught:
        captions(loader, 50)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"max_bad_fraction"):  # and it stays ended
        next(loader)


def test_a_few_bad_among_the_first_samples_are_no_reason_to_stop(open_loader):
    assert len(captions(open_loader(bad=(3,), max_bad=0.01), 20)) == 160


def test_no_bad_sample_at_all_may_be_demanded(open_loader):
    with pytest.raises(DataError, match="max_bad_fraction"):
        captions(open_loader(bad=(3,), max_bad=0.0), 20)


def test_a_source_without_one_good_sample_is_named(open_loader):
    loader = open_loader(bad=tuple(range(30)))
    with pytest.raises(DataError, match=r"data\.sources\.a: none of its 30 samples can be used"):
        captions(loader, 20)


def test_a_batch_that_ranks_cannot_share_is_refused(open_loader):
    with pytest.raises(
        ConfigError, match=r"optim\.global_batch: 8 .* 3 ranks: the nearest that can is 9"
    ):
        open_loader(world_size=3)


def test_closing_ends_the_thread_at_once_and_twice(open_loader):
    loader = open_loader()
    next(loader)
    loader.close()
    loader.close()
    assert not [t for t in threading.enumerate() if t.name == "batch-loader"]


def test_the_wait_is_a_fraction(open_loader):
    loader = open_loader()
    captions(loader, 3)
    assert 0 <= loader.wait_fraction() <= 1


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
