"""Preparing real captions: no leaks between splits, nothing half made, odd titles left out."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.real import captions
from jobs.real.models import llama_name, unpermute
from jobs.real.prepare import STEPS, main, prepare
from jobs.real.texts import topic_paragraphs
from jobs.real.write import MAX_SIDE, Item, split_of, whole_folder, write_source
from jobs.spec import SourceSpec
from mir.errors import DataError


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        (("woman scientist", "man scientist", "scientist"), "scientist"),
        (("woman: red hair", "person", "man"), "person"),
        (("A frog.", "frog", "The frog!", "frog 2"), "frog"),
    ],
)
def test_variants_share_a_concept_and_so_a_split(variants, expected):
    assert {captions.concept(text) for text in variants} == {expected}


def test_one_group_in_ten_validates():
    splits = [split_of(f"group {n}") for n in range(2000)]
    assert 150 < splits.count("validation") < 250
    assert set(splits) == {"train", "validation"}


def item(name, caption="A dog.", group="dog", size=(8, 6), bad=False):
    def load():
        if bad:
            raise BadSample("image corrupt", name)
        return Image.new("RGB", size, (10, 200, 30))

    return Item(name=name, caption=caption, group=group, load=load)


def test_a_written_source_is_read_back_and_says_what_was_left_out(tmp_path):
    items = [item(f"{n}", f"Größe {n}", f"group {n}") for n in range(60)]
    told = write_source(
        tmp_path / "s", [*items, item("big", size=(1000, 100)), item("x", bad=True)]
    )
    assert told.endswith("1 left out (image corrupt)")
    sources = {
        split: open_source(SourceSpec(kind="jsonl", path=str(tmp_path / "s" / f"{split}.jsonl")))
        for split in ("train", "validation")
    }
    read = {split: {s[i].caption for i in range(len(s))} for split, s in sources.items()}
    assert not read["train"] & read["validation"]
    assert read["train"] | read["validation"] == {f"Größe {n}" for n in range(60)} | {"A dog."}
    with Image.open(tmp_path / "s/images/big.jpg") as big:
        assert max(big.size) == MAX_SIDE


def test_a_folder_is_whole_or_not_there(tmp_path):
    (tmp_path / "s.making").mkdir()  # what an earlier, killed run left
    (tmp_path / "s.making/old").touch()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "s") as making:
        assert list(making.iterdir()) == []
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "s") as making:
        (making / "new").touch()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Red_flower", "Red flower"),
        ("Clipart by Some One - antenna", "antenna"),
        ("", None),
        ("12", None),
        ("1234", None),
        ("untitled drawing", None),
    ],
)
def test_titles_that_name_nothing_are_left_out(tmp_path, title, expected):
    path = tmp_path / "a.svg"
    path.write_text(f"<svg><dc:title>\n {title} </dc:title></svg>", encoding="utf-8")
    assert captions.drawing_title(path) == expected


def test_an_svg_without_title_has_none(tmp_path):
    (tmp_path / "a.svg").write_bytes(b"\xff\x00<svg/>")
    assert captions.drawing_title(tmp_path / "a.svg") is None


def test_a_title_is_used_once_and_a_common_one_never(tmp_path):
    for kind in ("svg", "png"):
        (tmp_path / "usr/share/openclipart" / kind).mkdir(parents=True)
    titles = ["frog", "frog", *["artist"] * (captions.TOO_COMMON + 1), "dog"]
    for n, title in enumerate(titles):
        svg = tmp_path / f"usr/share/openclipart/svg/{n}.svg"
        svg.write_text(f"<dc:title>{title}</dc:title>", encoding="utf-8")
        Image.new("RGB", (4, 4)).save(tmp_path / f"usr/share/openclipart/png/{n}.png")
    assert [found.caption for found in captions.clipart(tmp_path)] == ["frog", "dog"]


def test_stamps_take_the_english_line_and_leave_symbols_out(tmp_path):
    base = tmp_path / "usr/share/tuxpaint/stamps"
    for place in ("animals/frog", "symbols/a", "animals/unseen"):
        (base / place).parent.mkdir(parents=True, exist_ok=True)
        (base / f"{place}.txt").write_text("A frog.\nde.utf8=Ein Frosch.\n", encoding="utf-8")
    for place in ("animals/frog", "symbols/a"):
        Image.new("RGBA", (4, 4)).save(base / f"{place}.png")
    (found,) = captions.stamps(tmp_path)
    assert (found.name, found.caption, found.group) == ("animals-frog", "A frog.", "frog")
    assert found.load().getpixel((0, 0)) == (255, 255, 255)


def test_emoji_names_and_tags_share_pictures_and_groups(tmp_path):
    pictures = tmp_path / "emoji/img/google/64"
    pictures.mkdir(parents=True)
    (tmp_path / "emojibase/en").mkdir(parents=True)
    entries = [
        {"hexcode": "1F985", "label": "eagle", "tags": ["animal", "bird"], "group": 3},
        {"hexcode": "2639", "label": "frowning face", "tags": ["sad"], "group": 0},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
        {"hexcode": "1F3F4", "label": "black flag", "tags": ["a", "b"], "group": 9},
    ]
    (tmp_path / "emojibase/en/data.json").write_text(json.dumps(entries), encoding="utf-8")
    for code in ("1f985", "2639-fe0f", "1f1e6", "1f3f4"):
        Image.new("RGB", (4, 4)).save(pictures / f"{code}.png")
    names = [(i.name, i.caption) for i in captions.emoji(tmp_path, tags=False)]
    assert names == [("1f985", "eagle"), ("2639-fe0f", "frowning face")]
    (tagged,) = captions.emoji(tmp_path, tags=True)
    assert (tagged.caption, tagged.group) == ("animal, bird", "eagle")


def test_texts_are_prose():
    paragraphs = topic_paragraphs()
    assert len(paragraphs) >= 100
    assert len(set(paragraphs)) == len(paragraphs)
    assert all("\n" not in p and "::=" not in p and len(p.split()) >= 25 for p in paragraphs)


def test_what_was_not_fetched_is_named_and_what_is_ready_is_kept(tmp_path):
    said: list[str] = []
    left_out = prepare(tmp_path, said.append)
    assert left_out == [name for name, package, _ in STEPS if package is not None]
    written = (tmp_path / "texts.txt").read_text(encoding="utf-8")
    assert written.splitlines() == topic_paragraphs()
    prepare(tmp_path, said.append)
    assert said[-1] == "texts.txt: ready"


def test_a_wrong_call_is_one_line(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_rotary_rows_return_to_halves():
    """GGUF interleaves the two halves of each head's rotary dimensions."""
    halves = torch.arange(2 * 6).reshape(12, 1)  # 2 heads of 6 rows
    pairs = halves.reshape(2, 2, 3, 1).transpose(1, 2).reshape(12, 1)
    assert not torch.equal(pairs, halves)
    assert torch.equal(unpermute(pairs, heads=2), halves)


def test_gguf_names():
    assert llama_name("blk.7.attn_q.weight") == "model.layers.7.self_attn.q_proj.weight"
    assert llama_name("output_norm.weight") == "model.norm.weight"
    for odd in ("blk.7.attn_q.bias.x", "blk.1.ssm.weight", "output.weight"):
        with pytest.raises(DataError, match="belongs to no Llama"):
            llama_name(odd)
