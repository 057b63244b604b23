"""`mirsweep data check`: what is wrong with data is told before a job finds out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.data_choices import data_choices
from sweeps.recipe import load_recipe

EVIL = '<script>alert(1)</script> \x1b[31m & "quotes"'
ROOT = Path(__file__).parents[2]


def check(recipe: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["data", "check", str(recipe), *options])


def listing(folder: Path, rows: list[tuple[str, str]]) -> dict[str, str]:
    """Pictures by colour name, each a file of its own; 'missing' has none."""
    folder.mkdir()
    lines = []
    for n, (colour, caption) in enumerate(rows):
        if colour != "missing":
            Image.new("RGB", (8, 6), colour).save(folder / f"{n}.png")
        lines.append(json.dumps({"image": f"{n}.png", "caption": caption}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return {"kind": "jsonl", "path": f"{folder.name}/data.jsonl"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources and a validation set: one bad sample, repeats, overlap, a hostile caption."""
    monkeypatch.chdir(tmp_path)
    web = [("red", "one"), ("red", "two"), ("blue", "two"), ("missing", "three"), ("gold", EVIL)]
    data = {
        "sources": {
            "web": listing(tmp_path / "web", web),
            "books": listing(tmp_path / "books", [("blue", "blue thing"), ("lime", "x " * 90)]),
        },
        "validation": listing(tmp_path / "val", [("red", "in web"), ("black", "in none")]),
    }
    path = tmp_path / "r.yaml"
    leaf = {"optim": {"learning_rate": {"low": 1e-4, "high": 1e-2}}}
    sweep = {"name": "checked", "base": {"data": data}, "space": leaf, "budget": {"trials": 1}}
    path.write_text(yaml.safe_dump(sweep))
    return path


def facts_of(recipe: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = check(recipe, "--json", *options)
    found = json.loads(done.stdout)
    found["sources"] = {source["name"]: source for source in found["sources"]}
    return done.exit_code, found


def test_all_that_is_found_is_told(recipe: Path) -> None:
    code, found = facts_of(recipe)
    web, books = found["sources"]["sources.web"], found["sources"]["sources.books"]
    validation = found["sources"]["validation"]
    assert code == 2  # one bad of five is more than 1 %
    assert found["unit"] == "tokens"
    assert (web["samples"], web["read"]) == (5, 5)
    assert web["bad"] == {"image missing": [1, ["data.jsonl:4"]]}
    assert web["widths"] == [8] * 5
    assert web["same_picture"]["samples"] == web["same_caption"]["samples"] == 1
    assert web["same_picture"]["examples"] == ["2 times, e.g. data.jsonl:1 and data.jsonl:2"]
    assert "'two'" in web["same_caption"]["examples"][0]
    assert (web["elsewhere"], books["elsewhere"]) == (1, 1)  # the blue one
    assert (web["cut"], books["cut"]) == (0, 1)
    assert books["lengths"][-1] >= 90
    assert validation["in_training"] == {
        "sources.web": {"samples": 1, "examples": ["data.jsonl:1 is data.jsonl:1"]}
    }


def test_too_many_bad_samples_are_one_line_and_exit_code_2(recipe: Path) -> None:
    done = check(recipe)
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"error: {recipe}: base.data.sources.web: 1 of 5 samples cannot be used (image missing: "
        "1): 10 % of what a job reads, more than max_bad_fraction 0.01 allows: mend the data or "
        "raise the limit"
    ]
    for told in (
        "sources.web: image missing: 1, e.g. data.jsonl:4",
        "one caption 2 times: 'two', e.g. data.jsonl:2 and data.jsonl:3",
        "validation: 1 of 2 pictures are also in sources.web, e.g. data.jsonl:1 is data.jsonl:1",
    ):
        assert told in done.stdout
    assert "\x1b" not in done.stdout
    assert check(recipe, "--set", "base.data.max_bad_fraction=0.5").exit_code == 0


def mixed(recipe: Path, **data: Any) -> None:
    told = yaml.safe_load(recipe.read_text())
    told["base"]["data"] |= data
    recipe.write_text(yaml.safe_dump(told, sort_keys=False))


@pytest.mark.parametrize(
    ("weight", "limit", "code"),
    [(0.1, 0.03, 0), (0.1, 0.01, 2), (0.2, 0.03, 2), (0.0, 0.0, 0), (1.0, 0.2, 0)],
)
def test_a_source_is_held_to_the_limit_by_its_weight(
    recipe: Path, weight: float, limit: float, code: int
) -> None:
    """A fifth of web is bad: a job that draws a tenth from it meets 2 % of bad samples."""
    mixed(recipe, mixture={"web": weight, "books": 1 - weight}, max_bad_fraction=limit)
    done = check(recipe)
    assert done.exit_code == code, done.stderr
    if code:
        assert "sources.web: 1 of 5 samples cannot be used" in done.stderr
        assert f"{100 * weight * 0.2:.0f} % of what a job reads" in done.stderr


def test_caps_by_epochs_are_part_of_the_weights(recipe: Path) -> None:
    """5 samples of web once in 4096: next to nothing, though the mixture says half."""
    mixed(recipe, max_epochs={"web": 1})
    assert check(recipe).exit_code == 0
    mixed(recipe, max_epochs={"web": 1, "books": 1})
    done = check(recipe)
    assert done.exit_code == 2
    assert "base.data.max_epochs: leaves 7 samples to see" in done.stderr


def test_a_short_run_may_meet_as_many_bad_samples_as_the_loader_allows(recipe: Path) -> None:
    """A tenth of what it reads is bad, and the share is taken of 1,000 reads at least."""
    assert check(recipe, "--set", "base.optim.samples=96").exit_code == 0
    assert check(recipe, "--set", "base.optim.samples=128").exit_code == 2


def test_a_source_without_a_usable_sample_ends_a_job_whatever_its_weight(recipe: Path) -> None:
    for picture in (recipe.parent / "books").glob("*.png"):
        picture.unlink()
    mixed(recipe, mixture={"web": 0.999, "books": 0.001}, max_bad_fraction=0.5)
    done = check(recipe)
    assert done.exit_code == 2
    assert "base.data.sources.books: none of the 2 samples read can be used" in done.stderr


def test_what_is_scored_on_is_held_to_the_limit_as_the_job_does(recipe: Path) -> None:
    rows = [("missing", "none")] * 30 + [("red", f"caption {n}") for n in range(70)]
    validation = listing(recipe.parent / "hard", rows)
    mixed(recipe, validation=validation, validation_samples=60, mixture={"web": 0, "books": 1})
    done = check(recipe)
    assert done.exit_code == 2
    assert "base.data.validation: 30 of 100 samples cannot be used (image missing: 30)" in (
        done.stderr
    )
    assert check(recipe, "--set", "base.data.max_bad_fraction=0.1").exit_code == 0


def test_a_share_that_another_mixture_would_not_bear_is_told(recipe: Path) -> None:
    """A searched mixture may give the source more weight than the base does."""
    mixed(recipe, mixture={"web": 0.1, "books": 0.9}, max_bad_fraction=0.05)
    done = check(recipe)
    assert done.exit_code == 0
    assert "sources.web: ends a job in which it weighs more than 0.25" in done.stdout


def test_bad_lines_are_counted_by_reason(recipe: Path) -> None:
    """One in another encoding and one that breaks off do not hide the good ones."""
    with (recipe.parent / "web" / "data.jsonl").open("ab") as file:
        file.write(b'\n{"image": "0.png", "caption": "Gr\xf6\xdfe"}\n{"image": "0.p')
    web = facts_of(recipe)[1]["sources"]["sources.web"]
    assert (web["error"], web["samples"]) == ("", 7)
    assert web["bad"] == {
        "image missing": [1, ["data.jsonl:4"]],
        "entry is not UTF-8": [1, ["data.jsonl:6"]],
        "entry is not JSON": [1, ["data.jsonl:7"]],
    }


def test_conversations_of_text_alone_are_told_and_are_no_bad_samples(recipe: Path) -> None:
    talk = {"conversations": [{"from": "gpt", "value": "c"}]}
    Image.new("RGB", (8, 6), "red").save(recipe.parent / "a.png")
    entries = [{"image": "a.png", **talk}, *[talk] * 3]
    (recipe.parent / "l.json").write_text(json.dumps(entries))
    mixed(recipe, sources={"mix": {"kind": "llava", "path": "l.json", "size": 1}})
    code, found = facts_of(recipe)
    mix = found["sources"]["sources.mix"]
    assert (code, mix["samples"], mix["without_picture"], mix["bad"]) == (0, 1, 3, {})
    assert "sources.mix: 3 entries have no picture" in check(recipe).stdout


def test_a_source_that_cannot_be_read_does_not_hide_the_others(recipe: Path) -> None:
    (recipe.parent / "books" / "data.jsonl").write_text("not json")
    code, found = facts_of(recipe, "--set", "base.data.max_bad_fraction=0.5")
    assert code == 2
    assert "data.jsonl:1: not JSON" in found["sources"]["sources.books"]["error"]
    assert found["sources"]["sources.web"]["read"] == 5
    assert f"error: {recipe}: base.data.sources.books: " in (told := check(recipe).stderr)
    assert "data.jsonl:1: not JSON" in told


def test_a_wrong_size_is_told_with_the_right_one(recipe: Path) -> None:
    """So a recipe that needs sizes can be given any, and the check says which they are."""
    web = "base.data.sources.web.size"
    assert "size: 1 is declared" in (told := check(recipe, "--set", f"{web}=1").stderr)
    assert "holds 5 samples: set it to 5" in told
    assert facts_of(recipe, "--set", f"{web}=5")[1]["sources"]["sources.web"]["error"] == ""


def test_the_sheet_stands_alone_and_what_captions_say_stays_text(recipe: Path) -> None:
    page = Path(facts_of(recipe)[1]["sheet"])
    assert page == Path("runs/checked-data.html")
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<img ") == 8  # 4 of web, 2 of books, 2 of validation
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    other = recipe.parent / "new" / "sheet.html"
    assert facts_of(recipe, "--sheet", str(other))[1]["sheet"] == str(other)
    assert other.is_file()


def test_a_recipe_may_name_a_store_and_patterns(recipe: Path) -> None:
    """Addresses are not taken for paths beside the recipe."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in (recipe.parent / "web").iterdir():
        memory.pipe(f"memory://bucket/web/{path.name}", path.read_bytes())
    told = yaml.safe_load(recipe.read_text())
    told["base"]["data"]["sources"]["web"]["path"] = "memory://bucket/web/data.jsonl"
    told["base"]["data"]["sources"]["books"] = {"kind": "webdataset", "path": "shards/*.tar"}
    recipe.write_text(yaml.safe_dump(told))
    _, found = facts_of(recipe)
    web, books = found["sources"]["sources.web"], found["sources"]["sources.books"]
    assert (web["read"], web["error"]) == (5, "")
    assert web["bad"] == {"image missing": [1, ["data.jsonl:4"]]}
    assert re.search(
        r"data\.sources\.books\.path: .*shards/\*\.tar' holds no \.tar", books["error"]
    )
    assert f"error: {recipe}: base.data.sources.books.path: " in check(recipe).stderr
    done = CliRunner().invoke(app, ["plan", str(recipe)])
    assert done.exit_code == 2
    assert "holds no .tar files: check the path" in done.stderr
    memory.store.clear()


def test_a_part_can_be_read_of_sources_too_large_for_all(recipe: Path) -> None:
    _, found = facts_of(recipe, "--samples", "2")
    assert [s["read"] for s in found["sources"].values()] == [2, 2, 2]


def test_the_quickstart_is_clean_and_no_engine_is_loaded(tmp_path: Path) -> None:
    """In a process of its own: what the tests have loaded would hide it."""
    words = ["data", "check", str(ROOT / "sweeps/recipes/quickstart.yaml"), "--samples", "40"]
    code = (
        "import sys\nfrom orchestrator.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "print([n for n in ('torch', 'ray', 'transformers', 'mlflow') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
    assert "40 of 2,000" in done.stdout
    assert "cannot be used" not in done.stdout


def with_space(recipe: Path, space: dict[str, Any]) -> None:
    told = yaml.safe_load(recipe.read_text())
    told["base"]["data"]["max_bad_fraction"] = 0.5
    told["space"] = {"data": space}
    recipe.write_text(yaml.safe_dump(told, sort_keys=False))


def test_what_the_space_chooses_of_a_source_is_read_too_each_once(recipe: Path) -> None:
    """Three listings of web, the base's among them; each held to the weight that web has."""
    bad, good = (
        listing(recipe.parent / name, [(colour, f"{name} {n}") for n in range(4)])["path"]
        for name, colour in (("broken", "missing"), ("clean", "black"))
    )
    with_space(recipe, {"sources": {"web": {"path": {"choices": ["web/data.jsonl", bad, good]}}}})
    code, found = facts_of(recipe)
    broken, clean = (f"sources.web where path is {recipe.parent / path}" for path in (bad, good))
    assert list(found["sources"]) == ["sources.books", "sources.web", "validation", broken, clean]
    assert found["sources"][broken]["bad"] == {
        "image missing": [4, ["data.jsonl:1", "data.jsonl:2", "data.jsonl:3"]]
    }
    assert found["sources"][clean]["reads"] == found["sources"]["sources.web"]["reads"]
    assert list(found["sources"]["validation"]["in_training"]) == ["sources.web", clean]
    done = check(recipe)
    assert (code, done.exit_code) == (2, 2)
    where = f"where path is {recipe.parent / bad}: data.sources.web"
    assert done.stderr.splitlines() == [
        f"error: {recipe}: {where}: none of the 4 samples read can be used (image missing: 4): "
        "mend the data",
    ]
    assert clean in Path(found["sheet"]).read_text(encoding="utf-8")


def test_all_combinations_of_a_source_are_read_and_those_of_two_are_not(recipe: Path) -> None:
    fields = {"image_field": {"choices": ["image", "caption"]},
              "caption_field": {"choices": ["caption", "image"]}}  # fmt: skip
    with_space(recipe, {"sources": {"web": fields, "books": {"size": {"choices": [2, 3]}}}})
    found = facts_of(recipe)[1]["sources"]
    assert [name for name in found if " where " in name] == [
        "sources.web where caption_field is caption and image_field is image",
        "sources.web where caption_field is image and image_field is image",
        "sources.web where caption_field is caption and image_field is caption",
        "sources.web where caption_field is image and image_field is caption",
        "sources.books where size is 2",
        "sources.books where size is 3",
    ]
    assert "size: 3 is declared" in found["sources.books where size is 3"]["error"]
    told = f"error: {recipe}: where size is 3: data.sources.books.size: 3 is declared, but "
    assert told in check(recipe).stderr


def test_branches_of_whole_sets_are_read_with_what_varies_in_them(recipe: Path) -> None:
    """Only sources of one job are held against each other: red is in web and in art."""
    told = yaml.safe_load(recipe.read_text())["base"]["data"]
    art = listing(recipe.parent / "art", [("red", "red thing"), ("pink", "pink thing")])
    more = {"kind": "scenes", "style": {"choices": ["short", "tags"]}, "size": 3}
    branches = {"same": told["sources"], "art": {"art": art, "more": more}}
    with_space(recipe, {"sources": {"branches": branches}})
    code, found = facts_of(recipe)
    assert code == 0
    sources = found["sources"]
    art_name = "sources.art where sources is art"
    more_name = "sources.more where sources is art and sources/more.style is"
    assert list(sources) == [
        "sources.books", "sources.web", "validation",
        art_name, f"{more_name} short", f"{more_name} tags",
    ]  # fmt: skip
    assert sources[art_name]["elsewhere"] == 0
    assert list(sources["validation"]["in_training"]) == ["sources.web", art_name]


def test_sources_of_one_branch_are_varied_one_at_a_time(recipe: Path) -> None:
    """All combinations of ten with three paths each would be 59,049 jobs and no more sources."""
    paths = ["a.jsonl", "b.jsonl", "c.jsonl"]
    many = {f"s{n}": {"kind": "jsonl", "path": {"choices": paths}} for n in range(10)}
    told = yaml.safe_load(recipe.read_text())["base"]["data"]["sources"]
    with_space(recipe, {"sources": {"branches": {"same": told, "many": many}}})
    choices = data_choices(load_recipe(recipe))
    assert len(choices.variants) == 1 + 1 + (1 + 10 * 2)
    made = [name for name in choices.sources if " where " in name]
    assert len(made) == 10 * 3
    root = recipe.parent
    assert f"sources.s3 where sources is many and sources/s3.path is {root / 'b.jsonl'}" in made
