"""Reading a whole source: every sample once, repeats and overlap as a plain count finds them."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path

import pytest
from data_files import write_listing
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.build import open_source
from jobs.data.lengths import caption_measure
from jobs.data.repeats import elsewhere, overlap, repeated
from jobs.data.survey import Survey, digest, survey
from jobs.spec import SourceSpec

DIGESTS = st.lists(st.integers(2**64 - 5, 2**64 - 1) | st.integers(0, 3), max_size=30)


def words(texts):
    return [len(text.split()) for text in texts]


def source_of(tmp_path, count, bad=()):
    path = write_listing(tmp_path / "data", count, bad=bad)
    return open_source(SourceSpec(kind="jsonl", path=str(path)))


@pytest.mark.parametrize("threads", [1, 5])
def test_every_sample_is_read_once_and_in_order(tmp_path, threads):
    told = []
    source = source_of(tmp_path, 100, bad=(3, 50, 51, 99))
    found = survey(source, words, threads=threads, on_read=told.append)
    assert (found.size, found.read, sum(told), found.bad_count) == (100, 100, 100, 4)
    assert list(found.indices) == [n for n in range(100) if n not in (3, 50, 51, 99)]
    bad = found.bad["image missing"]
    assert (bad.count, bad.examples) == (4, [f"data.jsonl:{n}" for n in (4, 51, 52)])
    assert set(found.widths) == set(found.heights) == {4}
    assert set(found.lengths) == {2}
    assert len(set(found.pictures)) == len(set(found.captions)) == 96


def test_a_part_is_spread_over_the_source(tmp_path):
    found = survey(source_of(tmp_path, 200), words, limit=50)
    assert found.read == len(set(found.indices)) == 50
    assert list(found.indices) == sorted(found.indices)
    assert max(found.indices) > 150
    assert survey(source_of(tmp_path / "b", 5), words, limit=50).read == 5


def test_equal_pixels_are_equal_pictures_whatever_their_file(tmp_path):
    from PIL import Image

    (tmp_path / "i").mkdir()
    picture = Image.new("RGB", (6, 4), (1, 2, 3))
    picture.save(tmp_path / "i" / "a.png")
    picture.save(tmp_path / "i" / "b.bmp")
    picture.rotate(90, expand=True).save(tmp_path / "i" / "c.png")  # as many pixels, all alike
    lines = [f'{{"image": "{name}", "caption": "x"}}' for name in ("a.png", "b.bmp", "c.png")]
    (tmp_path / "i" / "d.jsonl").write_text("\n".join(lines))
    found = survey(open_source(SourceSpec(kind="jsonl", path=f"{tmp_path}/i/d.jsonl")), words)
    a, b, c = found.pictures
    assert a == b != c
    assert len(set(found.captions)) == 1


@given(DIGESTS)
def test_repeats_are_those_of_a_plain_count(digests):
    indices = array("Q", [7 * n for n in range(len(digests))])
    found = repeated(array("Q", digests), indices)
    counts = Counter(digests)
    assert found.samples == len(digests) - len(counts)
    times = [number for _, number in counts.most_common(3) if number > 1]
    assert [number for number, _, _ in found.examples] == times
    for _, first, second in found.examples:
        assert first < second
        assert digests[first // 7] == digests[second // 7]


@given(DIGESTS, DIGESTS, DIGESTS)
def test_overlap_is_that_of_plain_sets(ours, theirs, others):
    surveys = [
        Survey(size=len(d), pictures=array("Q", d), indices=array("Q", range(len(d))))
        for d in (ours, theirs, others)
    ]
    found = overlap(surveys[0], surveys[1])
    shared = [n for n, one in enumerate(ours) if one in theirs]
    assert found.samples == len(shared)
    assert [a for a, _ in found.examples] == shared[:3]
    assert all(ours[a] == theirs[b] for a, b in found.examples)
    assert elsewhere(surveys[0], surveys[1:]) == sum(one in theirs + others for one in ours)
    assert elsewhere(surveys[0], []) == 0


def test_digests_tell_parts_apart_from_their_sum():
    assert digest(b"a", b"b") == digest(b"ab") != digest(b"ba")


def test_lengths_are_those_of_the_tokenizer_that_training_uses():
    from transformers import AutoTokenizer

    from jobs.data.batch import tokens

    folder = Path(__file__).parents[2] / "jobs" / "world" / "assets" / "language"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["a red square", "</s> <image> a </s>", "ünknown wörds", "", "x " * 3000]
    for language in ("embedded", str(folder)):
        measure, unit = caption_measure(language)
        assert unit == "tokens"
        assert measure(texts) == [len(ids) for ids in tokens(texts, tokenizer)]


@pytest.mark.parametrize("language", ["someone/some-model", "/nowhere", {"hidden": 8}])
def test_without_a_tokenizer_here_words_are_counted(language):
    measure, unit = caption_measure(language)
    assert (unit, measure(["a red  square", ""])) == ("words", [3, 0])
