"""LLaVA's conversations as a whole: all turns are read, the answers alone are learnt."""

from __future__ import annotations

import json

import data_kinds
import pytest
from data_files import Characters, Colours
from PIL import Image

from jobs.data import llava
from jobs.data.batch import collate
from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.data.loader import BatchLoader
from jobs.data.sample import Sample
from jobs.data.survey import survey
from jobs.spec import DataSpec, SourceSpec
from mir.errors import ConfigError

TALK = [
    {"from": "system", "value": "Be kind."},
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A dog."},
    {"from": "human", "value": "Its colour?"},
    {"from": "gpt", "value": " Brown. "},
    {"from": "human", "value": "And left unanswered?"},
]


@pytest.fixture
def source_of(tmp_path):
    def make(*talks, image="a.png", **settings):
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
        entries = [{"image": image, "conversations": talk} for talk in talks]
        (tmp_path / "l.json").write_text(json.dumps(entries))
        spec = SourceSpec(kind="llava", path=str(tmp_path / "l.json"), **settings)
        return open_source(spec, "data.sources.a")

    return make


def test_all_turns_are_read_in_order_and_the_first_answer_is_still_the_default(source_of):
    sample = source_of(TALK, turns="all")[0]
    assert sample.turns == (
        ("USER: What is it? ASSISTANT:", " A dog."),
        ("USER: Its colour? ASSISTANT:", " Brown."),
    )
    assert (sample.prompt, sample.caption) == sample.turns[0]
    assert source_of(TALK)[0].turns == (("", "A dog."),)


def test_the_prompt_may_be_given_and_what_is_read_is_measured_as_a_whole(source_of):
    source = source_of(TALK, turns="all", prompt="Q {question} A")
    whole = "Q What is it? A A dog.Q Its colour? A Brown."
    assert source.caption(0) == source[0].text == whole
    assert survey(source, lambda texts: [len(t) for t in texts]).lengths[0] == len(whole)


def test_a_picture_without_a_question_needs_no_prompt(source_of):
    talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A dog."}]
    assert source_of(talk, turns="all")[0].turns == (("", "A dog."),)


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        ([], "no answer"),
        ("none", "no answer"),
        ([None, 5], "no answer"),
        (TALK[:2], "no answer"),
        ([{"from": "human", "value": 7}, TALK[2]], "question is not a string"),
        ([TALK[1], {"from": "gpt", "value": " "}], "caption empty"),
        ([*TALK, {"from": "gpt", "value": None}], "caption is not a string"),
        ([TALK[1], TALK[2]] * 2000, "caption too long"),
        ([{"from": "human", "value": "a\0"}, TALK[2]], "caption is not valid text"),
    ],
)
def test_a_turn_that_cannot_be_used_makes_a_bad_sample(source_of, talk, reason):
    source = source_of(talk, TALK, turns="all")
    for read in (source.__getitem__, source.caption):
        with pytest.raises(BadSample, match=reason):
            read(0)
    assert source[1].turns


def test_an_entry_without_a_picture_is_a_bad_sample(source_of):
    with pytest.raises(BadSample, match="no image path"):
        source_of(TALK, image=None, turns="all")[0]


def test_settings_that_nothing_would_read_are_refused(source_of, tmp_path):
    with pytest.raises(ConfigError, match=r"a\.prompt: .*first-answer.* turns: all"):
        source_of(TALK, prompt="Q {question} A")
    with pytest.raises(ConfigError, match=r"a\.prompt: 'Q' has no {question}"):
        source_of(TALK, turns="all", prompt="Q")
    jsonl = SourceSpec(kind="jsonl", path=str(tmp_path / "l.json"), turns="all")
    with pytest.raises(ConfigError, match=r"a\.turns: 'all' is read only by kind 'llava'"):
        open_source(jsonl, "a")


def sample(*turns):
    (prompt, caption), *more = turns
    return Sample(image=Image.new("RGB", (2, 2)), caption=caption, key="k", prompt=prompt,
                  more=tuple(more))  # fmt: skip


def test_every_answer_and_its_end_are_learnt_and_no_question_is():
    talk, plain = sample(("ab", "c"), ("d", "ef")), sample(("", "x"))
    batch = collate([talk, plain], Characters(), Colours(), 20)
    end = Characters.eos_token_id
    assert batch.caption_ids[0].tolist() == [*b"abc", end, *b"def", end]
    assert batch.caption_mask[0].tolist() == [False] * 2 + [True] * 2 + [False] + [True] * 3
    assert batch.caption_ids[1].tolist() == [*b"x", end, 0, 0, 0, 0, 0, 0]
    assert batch.caption_mask[1].tolist() == [True] * 2 + [False] * 6


@pytest.mark.parametrize("limit", [4, 5, 6, 7])
def test_later_turns_are_cut_first(limit):
    batch = collate([sample(("ab", "c"), ("d", "ef"))], Characters(), Colours(), limit)
    whole = collate([sample(("ab", "c"), ("d", "ef"))], Characters(), Colours(), 20)
    assert batch.caption_ids[0].tolist() == whole.caption_ids[0].tolist()[:limit]
    assert batch.caption_mask[0].tolist() == whole.caption_mask[0].tolist()[:limit]


def test_a_loader_hands_out_conversations(source_of, tmp_path):
    source_of(TALK)
    source = {"kind": "llava", "path": str(tmp_path / "l.json"), "turns": "all"}
    spec = DataSpec(sources={"talk": source}, validation=source, max_caption_tokens=200)
    loader = BatchLoader(
        spec, seed=0, tokenizer=Characters(), image_processor=Colours(), global_batch=1,
        rank=0, world_size=1,
    )  # fmt: skip
    batch = next(loader)
    loader.close()
    learnt = batch.caption_ids[batch.caption_mask].tolist()
    assert "".join(map(chr, learnt)) == " A dog.\x01 Brown.\x01"


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_conversations_of_text_alone_are_no_samples_of_a_list(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(llava, "_CHUNK", chunk)
    talk = b'"conversations": [{"from": "gpt", "value": "c"}]}'
    text, picture = b'{"id": "t", ' + talk, b'{"image": "0.png", ' + talk
    bad = {
        b'{"image": null, ' + talk: "no image path",
        b'{"image": "", ' + talk: "no image path",
        b'{"id": 1, "id": 2, ' + talk: "entry has a field twice",
        b'{"id": "\xff", ' + talk: "entry is not UTF-8",
    }
    (tmp_path / "l.json").write_bytes(b"[" + b",".join([text, picture, text, *bad, text]) + b"]")
    data_kinds.pictures(tmp_path)
    spec = {"kind": "llava", "path": f"{tmp_path}/l.json", "images": f"{tmp_path}/pictures"}
    source = open_source(SourceSpec(**spec, size=1 + len(bad)))
    assert source.without_picture == 3
    assert source[0].key == "l.json[1]"
    for n, reason in enumerate(bad.values(), start=1):
        with pytest.raises(BadSample, match=rf"l\.json\[{n + 2}\]: {reason}"):
            source[n]
