"""Recipes: what is accepted, and for every mistake one line with file, field, value, remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

from mir.errors import ConfigError
from sweeps.recipe import dump_job, dump_recipe, load_job, load_recipe

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
name: demo
base:
  data:
    sources:
      detailed: {kind: scenes, style: detailed, size: 400}
      short: {kind: scenes, style: short, size: 400}
      tags: {kind: scenes, style: tags, size: 400}
    validation: {kind: scenes, style: detailed, split: validation}
  optim: {samples: 1000, global_batch: 10}
space:
  data:
    mixture: {mixture: all, floor: 0.0}
  optim:
    learning_rate: {low: 1e-4, high: 1e-1, log: true}
  model:
    moca:
      branches:
        off: null
        on: {kind: scale-shift, init_std: {low: 0.0, high: 0.05}}
study: {sampler: tpe, seed: 0}
budget: {trials: 4}
"""


def write(tmp_path, *changes, text=GOOD):
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = tmp_path / "demo.yaml"
    path.write_text(text)
    return path


def test_numbers_as_yaml_gives_them_are_numbers(tmp_path):
    changes = (
        ("samples: 1000", "samples: 1e3"),
        ("global_batch: 10", "global_batch: 10, learning_rate: '1e-3'"),
    )
    sweep = load_recipe(write(tmp_path, *changes))
    assert sweep.base.optim.samples == 1000
    assert sweep.base.optim.learning_rate == 1e-3
    assert sweep.space["optim"]["learning_rate"]["low"] == 1e-4


def test_on_and_off_are_names_not_truths(tmp_path):
    sweep = load_recipe(write(tmp_path))
    assert list(sweep.space["model"]["moca"]["branches"]) == ["off", "on"]


@pytest.mark.parametrize("recipe", sorted((ROOT / "sweeps/recipes").glob("*.yaml")))
def test_shipped_recipes_are_valid_and_survive_a_round_trip(recipe, tmp_path):
    sweep = load_recipe(recipe)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(sweep))
    assert load_recipe(copy) == sweep


def test_a_job_survives_a_round_trip(tmp_path):
    job = load_recipe(write(tmp_path)).base
    path = tmp_path / "job.yaml"
    path.write_text(dump_job(job))
    assert load_job(path) == job
    assert load_job(path).digest == job.digest


def test_relative_paths_are_relative_to_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    sources = "kind: jsonl, path: data/a.jsonl, images: ../pictures"
    changes = (
        ("kind: scenes, style: detailed, size: 400", sources),
        ("  optim: {samples", "  model: {vision: encoder, language: org/model}\n  optim: {samples"),
        ("sampler: tpe", "sampler: tpe, storage: 'sqlite:///here.db'"),
        ("  model:\n    moca:", "  model:\n    vision: {choices: [encoder, embedded]}\n    moca:"),
    )
    sweep = load_recipe(write(tmp_path, *changes))
    source = sweep.base.data.sources["detailed"]
    assert source.path == str(tmp_path / "data/a.jsonl")
    assert source.images == str(tmp_path.parent / "pictures")
    assert sweep.base.model.vision == str(tmp_path / "encoder")
    assert sweep.base.model.language == "org/model"
    assert sweep.study.storage == f"sqlite:///{tmp_path / 'here.db'}"
    assert sweep.space["model"]["vision"]["choices"] == [str(tmp_path / "encoder"), "embedded"]


RATE = "learning_rate: {low: 1e-4, high: 1e-1, log: true}"
STYLE = "kind: scenes, style: short, size: 400"
MISTAKES = {
    "misspelt field": ("samples:", "sampels:", 9, "base.optim.sampels", "'samples'"),
    "misspelt space": (
        "learning_rate:",
        "learning_rat:",
        14,
        "learning_rat: no",
        "'learning_rate'",
    ),
    "wrong type": ("samples: 1000", "samples: many", 9, "base.optim.samples: 'many'", "integer"),
    "truth for number": ("samples: 1000", "samples: true", 9, "optim.samples: true", "a number"),
    "nothing for number": ("samples: 1000", "samples: null", 9, "optim.samples: null", "integer"),
    "below zero": ("samples: 1000", "samples: -1", 9, "base.optim.samples: -1", "greater than 0"),
    "unknown choice": ("kind: scenes", "kind: scene", 5, "detailed.kind: 'scene'", "'scenes'"),
    "missing field": ("name: demo\n", "", None, "name: is missing", "Add it"),
    "misspelt required": ("    validation:", "    validate:", 8, "data.validate:", "'validation'"),
    "misspelt section": ("space:\n", "spce:\n", 10, "spce: no such field", "'space'"),
    "short mixture": ("{mixture: all, floor: 0.0}", "all", 12, "'all' does not", "{mixture: all}"),
    "neither nor": ("mixture: all", "mixture: 3", 12, "mixture.mixture: 3", "'all' or a list"),
    "unknown sampler": ("sampler: tpe", "sampler: tpee", 20, "study.sampler: 'tpee'", "'tpe'"),
    "empty mixture": ("mixture: all", "mixture: []", 12, "space.data.mixture", "at least two"),
    "unknown source": ("mixture: all", "mixture: [detailed, shrt]", 12, "'shrt'", "'short'"),
    "floors": ("floor: 0.0", "floor: 0.4", 12, "space.data.mixture", "sum to 1.2"),
    "negative floor": ("floor: 0.0", "floor: -0.1", 12, "mixture.floor: -0.1", "or equal to 0"),
    "caps": ("floor: 0.0", "max_epochs: 0.1", 12, "space.data.mixture", "raise max_epochs"),
    "low above high": ("low: 1e-4", "low: 1", 14, "low 1 is not below high 0.1", "widen"),
    "log of zero": ("low: 1e-4", "low: 0", 14, "low 0 has no logarithm", "above 0"),
    "infinite": ("high: 1e-1", "high: .inf", 14, "learning_rate.high: inf", "finite"),
    "edge no job": (RATE, "beta1: {low: 0.5, high: 1.5}", 14, "space.optim.beta1: 1.5", "less"),
    "not whole": (RATE, "samples: {low: 1, high: 9}", 14, "space.optim.samples", "integer: true"),
    "no number": (RATE, "schedule: {low: 1, high: 9}", 14, "space.optim.schedule", "choices"),
    "bad choice": (RATE, "schedule: {choices: [cosin]}", 14, "schedule: 'cosin'", "'cosine'"),
    "choice twice": (RATE, "schedule: {choices: [cosine, cosine]}", 14, "twice", "remove one"),
    "no choices": (RATE, "schedule: {choices: []}", 14, "schedule.choices: []", "at least 1"),
    "truth as choice": (RATE, "samples: {choices: [true]}", 14, "samples.choices", "not a number"),
    "constant": (RATE, "learning_rate: 0.1", 14, "0.1 does not vary", "base.optim.learning_rate"),
    "no way to vary": (RATE, "learning_rate: {lo: 1}", 14, "learning_rate: does not", "low and"),
    "score varies": ("space:\n", "space:\n  score: {pairs: 1}\n", 11, "space.score", "base.score"),
    "branch field": ("init_std: {", "init_sdt: {", 19, "branches.on.init_sdt", "'init_std'"),
    "branch edge": ("{low: 0.0", "{low: -1", None, "space.model.moca.init_std: -1", "equal to 0"),
    "bad name": ("name: demo", "name: a/b", 1, "name: 'a/b'", "match"),
    "given twice": ("name: demo", "name: demo\nname: x", 2, "name: given twice", "Remove one"),
    "no YAML": ("name: demo", "name: [demo", None, "not readable as YAML", "Mend"),
    "an object": ("demo", "!!python/object:os.system x", 1, "constructor", "Mend"),
    "unknown guard": (
        "seed: 0",
        "guard: {constraints: {loss-near-bets: 1}}",
        20,
        "loss-near-bets",
        "'loss-near-best'",
    ),
    "guard number": (
        "seed: 0",
        "guard: {constraints: {loss-near-best: null}}",
        20,
        "loss-near-best: null",
        "fraction",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_one_line_with_its_place_and_remedy(name, tmp_path):
    old, new, line, place, remedy = MISTAKES[name]
    path = write(tmp_path, (old, new))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}:" if line else f"{path}:")
    assert "\n" not in message
    assert place in message
    assert remedy in message
    assert caught.value.exit_code == 2


def test_weights_below_zero_and_unknown_sources_in_the_base_are_refused(tmp_path):
    for weights, text in (("{tags: -1}", "mixture.tags: -1"), ("{tag: 1}", "unknown sources")):
        path = write(tmp_path, ("    validation:", f"    mixture: {weights}\n    validation:"))
        with pytest.raises(ConfigError, match=text):
            load_recipe(path)


def test_several_mistakes_show_the_first_and_count_the_rest(tmp_path):
    path = write(
        tmp_path, ("samples: 1000", "samples: 0"), ("trials: 4", "trials: 0"), ("log:", "lg:")
    )
    with pytest.raises(ConfigError, match=r"yaml:9: base\.optim\.samples: 0 .*\(and \d more"):
        load_recipe(path)


def test_mistakes_in_the_space_are_counted_beside_others(tmp_path):
    path = write(tmp_path, ("trials: 4", "trials: 0"), ("low: 1e-4", "low: 1"))
    with pytest.raises(ConfigError, match=r"learning_rate: low 1 .*\(and 1 more mistake\)"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"- a\n- b\n", "holds a list"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: &x [*x]\n", "contains itself"),
        (b"[" * 5000, "nested too deeply|not readable"),
        (b"? [a, b]\n: 1\n", "plain text"),
        (b"a: \x00\n", "not readable as YAML"),
    ],
)
def test_files_that_are_no_recipes_are_refused(content, message, tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_few_bytes_of_aliases_cannot_stand_for_billions_of_values(tmp_path):
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "demo.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        load_recipe(path)


def test_missing_files_folders_and_large_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than"):
        load_recipe(tmp_path / "large.yaml")


def test_a_job_names_its_mistakes_too(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("data: {sources: {}, validation: {}}\noptim: {learning_rat: 1}\n")
    with pytest.raises(ConfigError, match=r"job.yaml:1: data: sources is empty.*\(and 1 more"):
        load_job(path)


def test_reading_a_recipe_imports_nothing_heavy():
    code = (
        "import sys, sweeps.recipe; from sweeps.recipe import load_recipe;"
        "load_recipe('sweeps/recipes/quickstart.yaml');"
        "heavy = {'torch', 'ray', 'deepspeed', 'mlflow', 'optuna', 'transformers', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
