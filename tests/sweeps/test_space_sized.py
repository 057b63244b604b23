"""Caps by epochs and natural proportions over real data, whose sizes the recipe declares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sweeps_scores import ask

from jobs.data.build import open_source
from jobs.data.stream import MixtureStream
from jobs.spec import JobSpec
from mir.errors import ConfigError
from sweeps.recipe import load_recipe
from sweeps.space import space_of
from sweeps.study import RefusedError, Study

SIZES = {"web": 300, "books": 100}
SAMPLES = 720


def listing(folder: Path, name: str, size: int) -> dict[str, object]:
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    lines = [json.dumps({"image": "a.png", "caption": f"{name} {n}"}) for n in range(size)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return {"kind": "jsonl", "path": f"{name}.jsonl", "size": size}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two JSON lines files with their sizes; the second may be seen twice at most."""
    sources = {name: listing(tmp_path, name, size) for name, size in SIZES.items()}
    validation = {"kind": "jsonl", "path": "books.jsonl"}
    told = {
        "name": "real",
        "base": {
            "data": {"sources": sources, "validation": validation},
            "optim": {"samples": SAMPLES, "global_batch": 8},
        },
        "space": {"data": {"mixture": {"mixture": "all", "max_epochs": 2}}},
        "study": {"start": ["natural"]},
        "budget": {"trials": 3},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def seen(job: JobSpec) -> dict[str, int]:
    """Samples of each source in a whole run of a job, from sources that are really opened."""
    sizes = {
        name: len(open_source(source, f"data.sources.{name}"))
        for name, source in job.data.sources.items()
    }
    return MixtureStream(sizes, job.data.weights, job.seed).counts(job.optim.samples)


def test_the_natural_start_sees_every_source_equally_often(recipe: Path, tmp_path: Path) -> None:
    study = Study(load_recipe(recipe), tmp_path)
    trials = [ask(study) for _ in range(2)]
    natural = [t for t in trials if t.shown["mixture/web"] == pytest.approx(0.75)]
    assert len(natural) == 1
    counts = seen(natural[0].job)
    assert counts == pytest.approx({"web": 540, "books": 180}, abs=3)


def test_no_trial_sees_a_source_more_often_than_its_epochs_allow(recipe: Path) -> None:
    space = space_of(load_recipe(recipe))
    for u in (0.0, 0.3, 1.0):
        job, shown = space.job({"data.mixture/web": u})
        counts = seen(job)
        assert sum(counts.values()) == SAMPLES
        assert all(counts[name] <= 2 * size + 3 for name, size in SIZES.items())
        assert job.data.weights == pytest.approx({n: shown[f"mixture/{n}"] for n in SIZES})


def searched(recipe: Path, optim: dict[str, object], data: dict[str, object]) -> Path:
    """The recipe with more that varies beside the capped mixture."""
    told = yaml.safe_load(recipe.read_text())
    told["space"]["optim"] = optim
    told["space"]["data"] |= data
    del told["study"]
    recipe.write_text(yaml.safe_dump(told, sort_keys=False))
    return recipe


@pytest.mark.parametrize(
    "how", [{"low": 8, "high": 8000, "integer": True}, {"choices": [80, 8000]}]
)
def test_samples_beyond_what_the_epochs_allow_are_refused_in_the_recipe(recipe, how) -> None:
    words = r"space\.data\.mixture: where optim\.samples is 8000: the caps by epochs allow weights"
    with pytest.raises(ConfigError, match=words):
        load_recipe(searched(recipe, {"samples": how}, {}))


@pytest.mark.parametrize("sampler", ["gp", "random", "grid"])
def test_a_study_goes_on_after_points_beyond_their_epochs(sampler, recipe, tmp_path) -> None:
    """Samples and size are possible one by one, and some of their combinations are not."""
    sizes = {"sources": {"books": {"size": {"choices": [300, 1]}}}}
    sweep = load_recipe(searched(recipe, {"samples": {"choices": [80, 800]}}, sizes))
    grid = {"sampler": sampler, "startup_trials": 3}
    sweep = sweep.model_copy(update={"study": sweep.study.model_copy(update=grid)})
    study, refused = Study(sweep, tmp_path), 0
    for number in range(12):
        try:
            trial = study.ask(number, {})
        except RefusedError as error:
            assert "caps by epochs" in str(error)
            refused += 1
        else:
            study.tell_complete(number, trial.shown["mixture/web"], {})
    assert 0 < refused < 12


@pytest.mark.parametrize("declared", [99, 101])
def test_a_size_that_the_data_do_not_have_is_refused_with_both_numbers(
    recipe: Path, declared: int
) -> None:
    told = yaml.safe_load(recipe.read_text())
    told["base"]["data"]["sources"]["books"]["size"] = declared
    recipe.write_text(yaml.safe_dump(told, sort_keys=False))
    books = load_recipe(recipe).base.data.sources["books"]
    words = rf"data\.sources\.books\.size: {declared} .* holds 100 samples: set it to 100"
    with pytest.raises(ConfigError, match=words):
        open_source(books, "data.sources.books")


def test_a_missing_size_is_asked_for_in_a_way_that_works(recipe: Path) -> None:
    told = yaml.safe_load(recipe.read_text())
    del told["base"]["data"]["sources"]["books"]["size"]
    recipe.write_text(yaml.safe_dump(told, sort_keys=False))
    with pytest.raises(ConfigError, match=r"set base\.data\.sources\.books\.size to its number of"):
        load_recipe(recipe)
