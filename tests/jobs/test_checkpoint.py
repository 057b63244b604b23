"""Checkpoints: atomic, told apart, pruned, and a model again when loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import JOB, STATE, WEIGHTS, Progress, newest, open_checkpoint, save
from jobs.load import load_checkpoint
from jobs.semantics import SEMANTICS
from jobs.spec import JobSpec
from mir.errors import DataError

SOURCE = {"kind": "jsonl", "path": "a.jsonl"}
TENSORS = {"weight/a": torch.arange(3.0), "exp_avg/a": torch.ones(3)}


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(
        {"data": {"sources": {"a": SOURCE}, "validation": SOURCE}, **changes}
    )


def saved(folder, samples, of=None):
    progress = Progress(samples=samples, step=samples // 16, scored=0, ranks=1)
    return save(folder, of or spec(), progress, TENSORS)


def test_what_is_saved_comes_back(tmp_path):
    saved(tmp_path, 16)
    found = newest(tmp_path, spec())
    assert found.progress == Progress(samples=16, step=1, scored=0, ranks=1)
    assert found.weights().keys() == {"a"}
    tensors = found.tensors()
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert open_checkpoint(found.path) == (found, spec())


def test_only_the_newest_are_kept_and_the_newest_is_found(tmp_path):
    for samples in (16, 32, 1024, 48):
        saved(tmp_path, samples, spec(checkpoint={"keep": 3}))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["samples-000000000032", "samples-000000000048", "samples-000000001024"]
    assert newest(tmp_path, spec()).progress.samples == 1024


def test_saving_again_at_the_same_samples_replaces(tmp_path):
    saved(tmp_path, 16)
    saved(tmp_path, 16)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_save_leaves_the_one_before(tmp_path, monkeypatch):
    saved(tmp_path, 16)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path, 32)
    assert newest(tmp_path, spec()).progress.samples == 16


@pytest.mark.parametrize("damage", ["cut", "no state", "bad state", "leftover"])
def test_damaged_and_unfinished_ones_are_passed_over(tmp_path, damage):
    saved(tmp_path, 16)
    bad = saved(tmp_path, 32).path
    if damage == "cut":
        content = (bad / WEIGHTS).read_bytes()
        (bad / WEIGHTS).write_bytes(content[:-4])
    elif damage == "no state":
        (bad / STATE).unlink()
    elif damage == "bad state":
        (bad / STATE).write_text(json.dumps({"identity": "x"})[:-3])
    else:
        bad.rename(bad.with_name(".samples-000000000032.99"))
    assert newest(tmp_path, spec()).progress.samples == 16
    saved(tmp_path, 48)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_an_empty_or_missing_folder_has_none(tmp_path):
    assert newest(tmp_path, spec()) is None
    assert newest(tmp_path / "nothing", spec()) is None


def test_another_jobs_checkpoint_is_refused_but_sharding_does_not_make_another_job(tmp_path):
    saved(tmp_path, 16)
    same = spec(deepspeed={"zero_stage": 3, "micro_batch": 2}, checkpoint={"every_samples": 8})
    assert newest(tmp_path, same).progress.samples == 16
    with pytest.raises(DataError, match="samples-000000000016: made by another job"):
        newest(tmp_path, spec(seed=1))


def test_a_checkpoint_saved_before_a_field_existed_is_resumed(tmp_path):
    path = saved(tmp_path, 16).path
    job = json.loads((path / JOB).read_text())
    del job["model"]["projector_norm"], job["data"]["group_by_length"]
    (path / JOB).write_text(json.dumps(job))
    state = json.loads((path / STATE).read_text())
    state["identity"] = "0" * 16  # over fewer fields
    state["sizes"][JOB] = (path / JOB).stat().st_size
    (path / STATE).write_text(json.dumps(state))
    assert newest(tmp_path, spec()).progress.samples == 16
    with pytest.raises(DataError, match="made by another job"):
        newest(tmp_path, spec(seed=1))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loaded_checkpoint_holds_the_trained_weights(tmp_path):
    base = make_world(tmp_path)
    job = spec_of(base, model={"moca": {"init_std": 0.1}}, optim={"samples": 8})
    events_of(job, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    loaded = load_checkpoint(folder)
    assert (loaded.spec, loaded.samples) == (job, 8)
    state, weights = loaded.model.state_dict(), load_file(folder / WEIGHTS)
    assert any(name.startswith("moca.") for name in weights)
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    (folder / "job.json").write_text(spec_of(base).model_dump_json())
    state = json.loads((folder / STATE).read_text())
    state["sizes"]["job.json"] = (folder / "job.json").stat().st_size
    (folder / STATE).write_text(json.dumps(state))
    with pytest.raises(DataError, match="do not fit model"):
        load_checkpoint(folder)


# Many a version of that time trained as today's does, so it is not said that the numbers differ.
UNKNOWN = "was begun before training semantics were written down: it may end with other numbers"


def made_under(folder, semantics):
    """Rewrite a checkpoint as a version of other semantics made it; None as one before there were
    any."""
    state = json.loads((folder / STATE).read_text())
    state["progress"].pop("semantics")
    if semantics is not None:
        state["progress"]["semantics"] = semantics
    (folder / STATE).write_text(json.dumps(state))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("semantics", "began", "said"),
    [
        (None, 0, UNKNOWN),
        (SEMANTICS + 1, SEMANTICS + 1, f"began with training semantics {SEMANTICS + 1}, this is "),
        (2, 2, f"began with training semantics 2, this is {SEMANTICS}: with entries of LLaVA's "),
    ],
)
def test_a_run_that_began_under_other_semantics_goes_on_with_a_warning(
    tmp_path, caplog, semantics, began, said
):
    """Nothing is lost, and it is told from then on: in the log, the event, later checkpoints."""
    job = spec_of(make_world(tmp_path), optim={"samples": 16})
    first, *_ = events_of(job, tmp_path / "run")
    assert first.semantics == str(SEMANTICS)
    half, whole = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert open_checkpoint(whole)[0].progress.semantics == SEMANTICS
    assert "semantics" not in caplog.text
    shutil.rmtree(whole)
    made_under(half, semantics)
    first, *_, last = events_of(job, tmp_path / "run")
    assert (first.resumed_samples, last.event) == (8, "finished")
    assert first.semantics == f"began with {began}, goes on with {SEMANTICS}"
    (line,) = [r.getMessage() for r in caplog.records if "semantics" in r.getMessage()]
    assert line.startswith(f"{half}: {said}")
    assert open_checkpoint(whole)[0].progress.semantics == began


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_start_of_other_semantics_is_gone_on_from_with_a_warning(tmp_path, caplog):
    base = make_world(tmp_path)
    events_of(spec_of(base, optim={"samples": 8}), tmp_path / "first")
    (start,) = (tmp_path / "first" / "checkpoints").iterdir()
    on = spec_of(base, optim={"samples": 8}, start=str(start))
    events_of(on, tmp_path / "same")
    assert "semantics" not in caplog.text
    made_under(start, None)
    first, *_, last = events_of(on, tmp_path / "other")
    assert (first.semantics, last.event) == (str(SEMANTICS), "finished")
    (line,) = [r.getMessage() for r in caplog.records if "semantics" in r.getMessage()]
    assert line.startswith(f"start: {start}: {UNKNOWN}")
