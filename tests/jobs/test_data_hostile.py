"""A hundred and more hostile inputs: skipped and counted, or refused in one line; never worse."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hostile_listings as listings
import pytest
from hostile_pictures import BOMB, PICTURES, noise, saved

from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.data.sample import Source
from jobs.spec import SourceSpec
from mir.errors import MirsweepError

MEMORY = 512 << 20  # bytes of address space; each bomb is larger
SECONDS = 120.0


def allowed(reason):
    return reason if isinstance(reason, tuple) else (reason,)


def write(folder: Path) -> None:
    """All hostile inputs: pictures and traps below images, listings beside."""
    images = folder / "images"
    images.mkdir(parents=True)
    (images / listings.GOOD).write_bytes(saved(noise(), "PNG"))
    for name, (make, _) in PICTURES.items():
        (images / name).write_bytes(make())
    listings.traps(folder)
    rows = [{"image": name, "caption": "c"} for name in PICTURES]
    rows += [entry for entry, _ in listings.ENTRIES]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, (content, _) in listings.FILES.items():
        if callable(content) and name == "endless.jsonl":
            content(folder)
        else:
            good = (images / listings.GOOD).read_bytes()
            (folder / name).write_bytes(content(good) if callable(content) else content)
    for name, (line, _, _) in listings.LINES.items():
        (folder / f"{name}-among.jsonl").write_bytes(listings.LINE + line + b"\n" + listings.LINE)
        (folder / f"{name}-alone.jsonl").write_bytes(line)
    good = listings.GOOD_ENTRY
    for name, (entry, _, _) in listings.LISTED.items():
        (folder / f"{name}-among.json").write_bytes(b"[%b, %b, %b]" % (good, entry, good))
        (folder / f"{name}-alone.json").write_bytes(b"[%b]" % entry)


def read_all(folder: Path) -> dict[str, list[str | None]]:
    """What became of every sample (its reason, None where it was read) and of every file."""
    source = open_source(
        SourceSpec(kind="jsonl", path=f"{folder}/all.jsonl", images=f"{folder}/images")
    )
    found = {"samples": reasons(source)}
    found["files"] = [refusal(folder, name) for name in listings.FILES]
    for form, names in (("jsonl", listings.LINES), ("json", listings.LISTED)):
        for name in names:
            found[f"{name}-alone.{form}"] = [refusal(folder, f"{name}-alone.{form}")]
            found[f"{name}-among.{form}"] = reasons(opened(folder, f"{name}-among.{form}"))
    return found


def opened(folder: Path, name: str) -> Source:
    kind = listings.KINDS[Path(name).suffix]
    return open_source(SourceSpec(kind=kind, path=f"{folder}/{name}"), "data.sources.a")


def reasons(source: Source) -> list[str | None]:
    found: list[str | None] = []
    for index in range(len(source)):
        try:
            assert source[index].image.mode == "RGB"
        except BadSample as bad:
            found.append(bad.reason)
        else:
            found.append(None)
    return found


def refusal(folder: Path, name: str) -> str | None:
    try:
        assert opened(folder, name)[0].caption
    except MirsweepError as error:
        return str(error)
    return None


def main() -> None:
    """In a process of its own, whose memory is limited."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found = read_all(Path(sys.argv[1]))
    assert "torch" not in sys.modules
    print(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    write(place)
    return place


@pytest.fixture(scope="module")
def outcome(folder):
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_there_are_more_than_a_hundred_and_the_bombs_exceed_the_memory():
    assert BOMB > MEMORY
    lines = len(listings.LINES) + len(listings.LISTED)
    assert len(PICTURES) + len(listings.ENTRIES) + len(listings.FILES) + lines > 160


def test_every_hostile_sample_is_skipped_for_its_reason_in_bounded_memory(outcome):
    expected = {name: reason for name, (_, reason) in PICTURES.items()}
    pictures = dict(zip(expected, outcome["samples"], strict=False))
    wrong = {n: r for n, r in pictures.items() if r not in allowed(expected[n])}
    assert wrong == {}
    rest = zip(listings.ENTRIES, outcome["samples"][len(PICTURES) :], strict=True)
    assert [(str(e)[:80], r) for (e, reason), r in rest if r not in allowed(reason)] == []


def test_every_hostile_file_is_refused_in_one_line_or_read(outcome):
    found = dict(zip(listings.FILES, outcome["files"], strict=True))
    for name, (_, message) in listings.FILES.items():
        if message is None:
            assert found[name] is None, name
        else:
            assert_one_line(found[name], name, message)


def assert_one_line(said, name, message):
    assert said is not None, name
    assert re.search(message, said), (name, said)
    assert name in said
    assert "\n" not in said
    assert len(said) < 600


@pytest.mark.parametrize(
    ("name", "reason"),
    [(f"{name}-among.jsonl", reason) for name, (_, reason, _) in listings.LINES.items()]
    + [(f"{name}-among.json", reason) for name, (_, reason, _) in listings.LISTED.items()],
)
def test_one_bad_entry_is_a_bad_sample_and_does_not_refuse_the_file(outcome, name, reason):
    assert outcome[name] == [None, reason, None]


@pytest.mark.parametrize(
    ("name", "message"),
    [(f"{name}-alone.jsonl", f":1: .*{words}") for name, (_, _, words) in listings.LINES.items()]
    + [(f"{name}-alone.json", f": entry 0.*{w}") for name, (_, _, w) in listings.LISTED.items()],
)
def test_a_file_of_nothing_but_bad_entries_is_refused_in_one_line(outcome, name, message):
    assert_one_line(outcome[name][0], name, message)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_the_loader_counts_all_of_them_and_goes_on(folder):
    from data_files import Characters, Colours

    from jobs.data.loader import BatchLoader
    from jobs.spec import DataSpec

    source = {"kind": "jsonl", "path": f"{folder}/all.jsonl", "images": f"{folder}/images"}
    spec = DataSpec(
        sources={"web": source}, validation=source, max_bad_fraction=1.0, max_caption_tokens=20
    )
    total = len(PICTURES) + len(listings.ENTRIES)
    loader = BatchLoader(
        spec, seed=0, tokenizer=Characters(), image_processor=Corner(Colours()),
        global_batch=total, rank=0, world_size=1, workers=2,
    )  # fmt: skip
    next(loader)
    loader.close()
    counted = Counter({s.reason: s.count for s in loader.take_skipped()})
    direct = Counter(r for r in read_all(folder)["samples"] if r is not None)
    assert counted == direct  # one epoch: each of them once, stand-ins or not


class Corner:
    """Keeps what Colours sees small: the corner alone."""

    def __init__(self, inner):
        self._inner = inner

    def __call__(self, images, return_tensors):
        return self._inner([image.crop((0, 0, 1, 1)) for image in images], return_tensors)


def test_a_caption_with_image_and_end_tokens_is_plain_text():
    """No token of it is special, so it neither ends the text nor stands for a picture."""
    from PIL import Image
    from transformers import AutoTokenizer

    from jobs.data.batch import collate
    from jobs.data.sample import Sample

    folder = Path(__file__).parents[2] / "jobs" / "world" / "assets" / "language"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "<image> a </s> b <s> <pad> " + " ".join(tokenizer.all_special_tokens)
    sample = Sample(image=Image.new("RGB", (2, 2)), caption=text, key="k")

    def processor(images, return_tensors):
        import torch

        return {"pixel_values": torch.zeros(len(images), 3, 1, 1)}

    ids = collate([sample], tokenizer, processor, 500).caption_ids[0].tolist()
    assert ids[-1] == tokenizer.eos_token_id
    assert not set(ids[:-1]) & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})


if __name__ == "__main__":
    main()
