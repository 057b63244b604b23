"""A whole job on a GPU ends where it ends on the host; without a GPU the same runs on the host."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import make_world, spec_of

from jobs.checkpoint import WEIGHTS
from jobs.events import Finished, Scored, Started, Step, Stopped
from jobs.place import Place
from jobs.run import run_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ON_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
)
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
ENGINES = {
    "zero-0": {},
    "zero-2 offloaded": {"zero_stage": 2, "offload_optimizer": True},
    "zero-3": {"zero_stage": 3},
    "zero-3 offloaded": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    "checkpointed activations": {"activation_checkpointing": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def job(base, **deepspeed):
    learns = {"language_until": "all", "vision_from": 1}
    return spec_of(
        base, deepspeed=deepspeed, model={"trainable": learns, "moca": {"init_std": 0.02}},
        optim={"weight_decay": 0.05, "learning_rate": 1e-3},
    )  # fmt: skip


def run(spec, folder, device, **place):
    return list(run_job(spec, Place(folder=folder, device=device, **place)))


def mirs(events):
    return [event.mir["mir"] for event in events if isinstance(event, Scored)]


def weights(folder, samples=24):
    return load_file(folder / "checkpoints" / f"samples-{samples:012d}" / WEIGHTS)


@pytest.fixture(scope="module")
def host(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    return run(job(base), folder, "cpu"), weights(folder)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("device", DEVICES)
def test_it_ends_where_the_hosts_plain_engine_does(base, host, tmp_path, device, engine):
    events = run(job(base, **ENGINES[engine]), tmp_path, device)
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished), events[-1]
    assert mirs(events) == pytest.approx(mirs(host[0]), abs=2e-3)
    for name, weight in weights(tmp_path).items():
        torch.testing.assert_close(weight, host[1][name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=ON_GPU)])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_learns_what_full_precision_does(base, host, tmp_path, device, precision):
    if (device, precision) == ("cpu", "fp16"):
        pytest.skip("fp16 needs a GPU")
    events = run(job(base, zero_stage=2, precision=precision), tmp_path, device)
    assert isinstance(events[-1], Finished), events[-1]
    losses, full = ([e.loss for e in told if isinstance(e, Step)] for told in (events, host[0]))
    assert losses[-1] == pytest.approx(full[-1], rel=0.05)


@pytest.mark.parametrize("device", DEVICES)
def test_interrupted_it_ends_where_it_would_have(base, tmp_path, device):
    spec = job(base, zero_stage=2)
    run(spec, tmp_path / "whole", device)
    polls = iter(range(100))
    stop = {"stop_requested": lambda: "asked" if next(polls) == 2 else None}
    assert isinstance(run(spec, tmp_path / "parts", device, **stop)[-1], Stopped)
    assert isinstance(run(spec, tmp_path / "parts", device)[-1], Finished)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=0 if device == "cpu" else 1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_features_that_were_kept_change_nothing(base, tmp_path, device):
    spec = spec_of(base, model={"feature_cache": "off"})
    plain = run(spec, tmp_path / "plain", device)
    kept = spec_of(base, model={"feature_cache": str(tmp_path / "features")})
    for number in range(2):  # the second finds all of them
        events = run(kept, tmp_path / f"{number}", device)
        assert mirs(events) == pytest.approx(mirs(plain), abs=0 if device == "cpu" else 1e-3)
