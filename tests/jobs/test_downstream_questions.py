"""Questions as samples: the usual files, the world's own, and prompts that are not learnt."""

import json

import pytest
import torch
from PIL import Image

from jobs.data.batch import collate
from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.data.sample import Sample
from jobs.spec import SourceSpec
from mir.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    for name in ("7.jpg", "a.png", "COCO_000012.jpg"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    return tmp_path


def source_of(folder, name, content, **settings):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return open_source(SourceSpec(kind="vqa", path=str(folder / name), **settings))


def told(sample: Sample) -> tuple[str, str, tuple[str, ...]]:
    return sample.prompt, sample.caption, sample.answers


def test_json_lines(folder):
    lines = [{"image": "a.png", "question": "What?", "answer": "a dog"},
             {"image": "a.png", "question": "Who?", "answers": ["x", "y", "y"]}]  # fmt: skip
    source = source_of(folder, "q.jsonl", "\n".join(map(json.dumps, lines)))
    assert told(source[0]) == ("Question: What?\nAnswer:", " a dog", ("a dog",))
    assert told(source[1])[1:] == (" y", ("x", "y", "y"))


def test_vqa_questions_with_annotations_apart(folder):
    questions = {"questions": [{"image_id": 12, "question": "How many?", "question_id": 5}]}
    answers = [{"answer": "2"}, {"answer": "two"}, {"answer": "2"}]
    (folder / "a.json").write_text(
        json.dumps({"annotations": [{"question_id": 5, "answers": answers}]})
    )
    source = source_of(
        folder, "q.json", questions, answers=str(folder / "a.json"),
        image_name="COCO_{image_id:06d}.jpg", prompt="{question} ->",
    )  # fmt: skip
    assert told(source[0]) == ("How many? ->", " 2", ("2", "two", "2"))


def test_textvqa(folder):
    data = {"data": [{"image_id": "7", "question": "Says?", "answers": ["stop"]}]}
    assert told(source_of(folder, "t.json", data)[0])[1:] == (" stop", ("stop",))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"image": "a.png", "question": "Who?"}, "no answer"),
        ({"image": "a.png", "question": 5, "answer": "x"}, "caption is not a string"),
        ({"question": "Who?", "answer": "x"}, "no image path"),
        ({"image_id": True, "question": "Who?", "answer": "x"}, "no image path"),
        ({"image": "../../etc/passwd", "question": "Who?", "answer": "x"}, "leaves"),
        ({"image": "none.png", "question": "Who?", "answer": "x"}, "missing"),
        ({"image": "a.png", "question": "Who?", "answer": ""}, "empty"),
    ],
)
def test_what_is_wrong_with_one_question_is_a_bad_sample(folder, entry, reason):
    source = source_of(folder, "q.json", [entry])
    with pytest.raises(BadSample, match=reason):
        source[0]


GOOD = '{"image": "a.png", "question": "Who?", "answer": "x"}'
BAD = {
    '{"image": "a.png", "question": "Gr\xf6\xdfe?", "answer": "x"}': "entry is not UTF-8",
    '{"image": "a.png", "image": "b.png", "question": "Who?"}': "entry has a field twice",
    "[1]": "entry is not an object",
    "7": "entry is not an object",
}


@pytest.mark.parametrize("form", ["lines", "list", "questions"])
def test_a_bad_entry_is_a_bad_sample_in_every_form(folder, form):
    bad = BAD | ({GOOD[:20]: "entry is not JSON"} if form == "lines" else {})
    entries = [GOOD, *bad, GOOD]
    text = {"lines": "\n".join, "list": lambda e: f"[{','.join(e)}]",
            "questions": lambda e: f'{{"questions": [{",".join(e)}]}}'}[form](entries)  # fmt: skip
    name = "q.jsonl" if form == "lines" else "q.json"
    (folder / name).write_bytes(text.encode("latin-1"))
    source = open_source(SourceSpec(kind="vqa", path=str(folder / name)))
    assert len(source) == len(entries)
    assert source[0].answers == source[len(entries) - 1].answers == ("x",)
    for n, reason in enumerate(bad.values(), start=1):
        for read in (source.__getitem__, source.caption):
            with pytest.raises(BadSample, match=rf"^q\.jsonl?\[{n}\]: {reason}$"):
                read(n)


@pytest.mark.parametrize("name", ["q.jsonl", "q.json"])
@pytest.mark.parametrize("text", BAD)
def test_a_file_of_nothing_but_bad_entries_is_one_line(folder, name, text):
    whole = f"{text}\n{text}" if name == "q.jsonl" else f"[{text}, {text}]"
    (folder / name).write_bytes(whole.encode("latin-1"))
    with pytest.raises(DataError, match=r"q\.json") as caught:
        open_source(SourceSpec(kind="vqa", path=str(folder / name)))
    assert "\n" not in str(caught.value)


def test_bad_annotations_leave_their_questions_without_a_usable_answer(folder):
    ids = range(4)
    asked = [{"image": "a.png", "question": "Who?", "question_id": n} for n in ids]
    told = [f'{{"question_id": {n}, "answers": [{{"answer": "{a}"}}]}}' for n, a in
            enumerate(("x", "Gr\xf6\xdfe"))]  # fmt: skip
    twice = '{"question_id": 3, "question_id": 3, "answers": ["y"]}'
    content = f'{{"annotations": [{told[0]}, {told[1]}, 7, {twice}]}}'
    (folder / "a.json").write_bytes(content.encode("latin-1"))
    source = source_of(folder, "q.json", asked, answers=str(folder / "a.json"))
    assert source[0].answers == ("x",)
    for n, reason in ((1, "caption is not valid text"), (2, "no answer"), (3, "no answer")):
        with pytest.raises(BadSample, match=reason):
            source[n]


@pytest.mark.parametrize("content", ["{}", "[1]", '{"data": 5}', "not json", '"text"'])
def test_what_is_wrong_with_the_file_is_one_line(folder, content):
    with pytest.raises(DataError, match=r"q\.json"):
        source_of(folder, "q.json", content)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "Say it:"}, "has no {question}"),
        ({"image_name": "{image_id.__class__}.jpg"}, "nothing else in braces"),
        ({"image_name": "{"}, "image_name"),
        ({"answers": "nowhere.json"}, r"answers"),
        ({"style": "detailed"}, "style"),
    ],
)
def test_wrong_settings_are_refused(folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        source_of(folder, "q.json", [{"image": "a.png"}], **settings)


def test_the_worlds_questions_depend_on_their_number_alone():
    source = open_source(SourceSpec(kind="questions", split="validation", size=50))
    first, again = source[17], source[17]
    assert told(first) == told(again)
    assert first.prompt.startswith("question : ") and first.prompt.endswith(" answer :")
    assert first.caption == f" {first.answers[0]} ."
    kinds = {source[i].prompt.split()[2] for i in range(50)}
    assert {"how", "is", "where", "what"} <= kinds


class Words:
    """A tokenizer of single letters."""

    eos_token_id, pad_token_id = 0, 0

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def pixels(images, return_tensors):
    return {"pixel_values": torch.zeros(len(images), 3, 2, 2)}


def batch_of(samples, limit=64):
    return collate(samples, Words(), pixels, limit)


def test_a_prompt_is_read_and_not_learnt():
    picture = Image.new("RGB", (2, 2))
    asked = Sample(image=picture, caption="xy", key="a", prompt="abc")
    plain = Sample(image=picture, caption="d", key="b")
    batch = batch_of([asked, plain])
    assert bytes(batch.caption_ids[0].tolist()) == b"abcxy\0"
    assert batch.caption_mask.tolist() == [
        [False] * 3 + [True] * 3, [True, True, False, False, False, False],
    ]  # fmt: skip


def test_a_prompt_too_long_keeps_its_end_and_the_whole_answer():
    sample = Sample(image=Image.new("RGB", (2, 2)), caption="xy", key="a", prompt="abcdef")
    batch = batch_of([sample], limit=5)
    assert bytes(batch.caption_ids[0].tolist()) == b"efxy\0"
    assert batch.caption_mask[0].tolist() == [False, False, True, True, True]
