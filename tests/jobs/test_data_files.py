"""Listing files: a bad entry is a bad sample; a file without one usable entry is refused."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from data_files import write_listing
from PIL import Image

from jobs.data import listing
from jobs.data.build import open_source, open_texts
from jobs.data.errors import BadSample
from jobs.spec import SourceSpec, TextsSpec
from mir.errors import ConfigError, DataError


def jsonl(tmp_path, *lines, raw=None):
    """A source of the given entries (objects become JSON) over one good picture a.png."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path = tmp_path / "data.jsonl"
    path.write_bytes("\n".join(texts).encode() if raw is None else raw)
    return open_source(SourceSpec(kind="jsonl", path=str(path)))


def test_good_lines_are_read_in_order(tmp_path):
    source = jsonl(
        tmp_path,
        {"image": "a.png", "caption": " One. "},
        "",
        {"image": "a.png", "caption": "Zwei ü"},
    )
    assert [source[i].caption for i in range(len(source))] == ["One.", "Zwei ü"]
    assert source[1].key == "data.jsonl:3"
    assert source[0].image.mode == "RGB"


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    assert len(jsonl(tmp_path, raw=b'\xef\xbb\xbf{"image": "a.png", "caption": "x"}\r\n')) == 1


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "caption empty"),
        (" \n\t", "caption empty"),
        (None, "caption is not a string"),
        (7, "caption is not a string"),
        (["A dog."], "caption is not a string"),
        ({"text": "A dog."}, "caption is not a string"),
        ("x" * 10_000_000, "caption too long"),
        ("\ud800 dog", "caption is not valid text"),
    ],
)
def test_bad_captions_are_bad_samples(tmp_path, caption, reason):
    source = jsonl(tmp_path, {"image": "a.png", "caption": caption})
    with pytest.raises(BadSample, match=reason) as caught:
        source[0]
    assert caught.value.key == "data.jsonl:1"
    assert vars(source)["_index"].sizes.itemsize == 4  # nothing of a monstrous caption is kept


@pytest.mark.parametrize("image", [None, "", 3, ["a.png"], "none.png", "../a.png", "a\0.png"])
def test_bad_image_fields_are_bad_samples(tmp_path, image):
    source = jsonl(tmp_path, {"image": image, "caption": "x"})
    with pytest.raises(BadSample, match="image"):
        source[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", r"data\.jsonl:2: not JSON"),
        ("[" * 100_000, r"data\.jsonl:2: not JSON"),
        ("7", r"data\.jsonl:2: int instead of an object"),
        ('{"image": "a.png", "text": "x"}', r"data\.jsonl:2: no field 'caption' \(found: .*text"),
    ],
)
def test_a_file_without_a_usable_line_is_refused_with_what_is_wrong_first(tmp_path, line, message):
    with pytest.raises(DataError, match=message) as caught:
        jsonl(tmp_path, "", line, "rubbish", "null")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_bad_lines_are_bad_samples_wherever_they_stand(tmp_path):
    good = b'{"image": "a.png", "caption": "x"}\n'
    latin = '{"image": "a.png", "caption": "Größe"}\n'.encode("latin-1")
    source = jsonl(tmp_path, raw=latin + good + b"\n" + b'{"image": "a.png"}\n' + good + good[:20])
    bad = {0: ("entry is not UTF-8", 1), 2: ("caption is not a string", 4),
           4: ("entry is not JSON", 6)}  # fmt: skip
    for index in range(len(source)):
        if index in bad:
            reason, line = bad[index]
            for read in (source.__getitem__, source.caption):
                with pytest.raises(BadSample, match=rf"^data\.jsonl:{line}: {reason}$"):
                    read(index)
        else:
            assert source[index].caption == "x"
    assert len(source) == 5


@pytest.mark.parametrize("length", [(1 << 20) + 1, 2 << 20, (3 << 20) + 7])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_endless_line_is_passed_over_and_never_held(tmp_path, monkeypatch, length, end):
    monkeypatch.setattr(listing, "MAX_ENTRY", 1 << 20)
    good = b'{"image": "a.png", "caption": "x"}\n'
    source = jsonl(tmp_path, raw=good + b"x" * length + b"\n" + good + b"y" * length + end)
    assert source[2].key == "data.jsonl:3"
    for index, line in ((1, 2), (3, 4)):
        with pytest.raises(BadSample, match=rf"data\.jsonl:{line}: entry too large"):
            source[index]
    assert len(source) == 4
    with pytest.raises(DataError, match=r"data\.jsonl:1: a line of more than 1 MiB"):
        jsonl(tmp_path, raw=b"x" * length + end)


def test_a_listing_that_shrinks_under_a_run_is_no_bad_sample(tmp_path):
    source = jsonl(tmp_path, *[{"image": "a.png", "caption": "x"}] * 3)
    (tmp_path / "data.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.jsonl:2: shorter than when it was opened: leave"):
        source[1]


def test_llava_takes_the_first_answer(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    turns = [
        {"from": "human", "value": "Describe.\n<image>"},
        {"from": "gpt", "value": "A dog."},
        {"from": "gpt", "value": "Later."},
    ]
    entries = [
        {"id": "1", "image": "a.png", "conversations": turns},
        {"id": "2", "conversations": turns},
        {"id": "3", "image": "a.png", "conversations": "none"},
        {"id": "4", "image": "a.png", "conversations": [None, 5]},
        7,
    ]
    (tmp_path / "l.json").write_text(json.dumps(entries), encoding="utf-8")
    source = open_source(SourceSpec(kind="llava", path=str(tmp_path / "l.json")))
    assert source[0].caption == "A dog."
    reasons = ("not a string", "not a string", "entry is not an object")
    for index, reason in enumerate(reasons, start=1):
        with pytest.raises(BadSample, match=rf"l\.json\[{index + 1}\]: .*{reason}"):
            source[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"image": 1}', "dict instead of a list"),
        ("[1]", "entry 0: int instead"),
        ("[", "not JSON"),
        ('[{"id": 1}, {}]', "none of its 2 entries has the field 'image': write"),
    ],
)
def test_a_broken_llava_file_is_refused(tmp_path, content, message):
    (tmp_path / "l.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_source(SourceSpec(kind="llava", path=str(tmp_path / "l.json")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "jsonl"}, r"data\.sources\.a\.path: missing"),
        ({"kind": "jsonl", "path": "none.jsonl"}, r"a\.path: 'none\.jsonl' is no file"),
        ({"kind": "jsonl", "path": "{tmp}/data.jsonl", "images": "none"}, r"a\.images: 'none'"),
        ({"kind": "jsonl", "path": "{tmp}/data.jsonl", "style": "short"}, r"a\.style: 'short'"),
        ({"kind": "llava", "path": "x.json", "split": "validation"}, r"a\.split: 'validation' is"),
        (
            {"kind": "jsonl", "path": "{tmp}/data.jsonl", "size": 3},
            r"a\.size: 3 is .* holds 2 samp",
        ),
        ({"kind": "scenes"}, r"a\.style: missing: kind 'scenes' needs one of detailed"),
        ({"kind": "scenes", "style": "none"}, r"a\.style: 'none' is unknown; known: detailed"),
        ({"kind": "scenes", "style": "short", "path": "x"}, r"a\.path: 'x' is not read by kind"),
    ],
)
def test_wrong_settings_are_refused_with_field_value_and_remedy(tmp_path, settings, message):
    write_listing(tmp_path, 2)
    settings = {key: str(v).format(tmp=tmp_path) for key, v in settings.items()}
    with pytest.raises(ConfigError, match=message):
        open_source(SourceSpec(**settings), "data.sources.a")


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.jsonl holds no samples"):
        jsonl(tmp_path, "")


def test_texts_come_from_lines_or_files_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("two\nlines\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\n\n", encoding="utf-8")
    assert open_texts(TextsSpec(source=str(tmp_path / "b.txt"))) == ["two", "lines"]
    assert open_texts(TextsSpec(source=str(tmp_path))) == ["one", "two\nlines"]
    assert len(open_texts(TextsSpec())) >= 100


def test_unusable_texts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"score\.texts\.source: 'nowhere' does not exist"):
        open_texts(TextsSpec(source="nowhere"))
    with pytest.raises(DataError, match="holds no text"):
        open_texts(TextsSpec(source=str(tmp_path)))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        open_texts(TextsSpec(source=str(tmp_path)))


COUNT = 4000


@pytest.mark.parametrize("kind", ["jsonl", "llava"])
def test_only_the_places_of_entries_are_kept(tmp_path, kind):
    """Less than 60 bytes a sample stay, whatever its captions; the arrays grow by an eighth."""
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a dog " * 40}]
    entry = {"image": "a.png", "caption": "a dog " * 40, "conversations": turns}
    lines = [json.dumps({**entry, "id": n}) for n in range(COUNT)]
    text = "\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]"
    (tmp_path / "data").write_text(text, encoding="utf-8")
    spec = SourceSpec(kind=kind, path=str(tmp_path / "data"))
    open_source(spec)  # what is imported on the way does not count
    tracemalloc.start()
    try:
        source = open_source(spec)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == COUNT
    assert kept < 60 * COUNT
    assert kind == "llava" or most < len(text) / 4  # nor is the whole of it ever held
    assert source.caption(COUNT - 1) == ("a dog " * 40).strip()
