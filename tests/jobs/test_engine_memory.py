"""What saves memory changes no number: offloading, recomputed activations, and both at once."""

import pytest
import torch
from tiny_job import make_world, spec_of

from jobs.data.loader import BatchLoader
from jobs.engine.activations import checkpoint_activations
from jobs.engine.deepspeed_engine import Engine
from jobs.model.build import build_model
from jobs.place import Place
from mir.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
STEPS = 4
HOST = {"offload_optimizer": True}
BOTH = {"offload_optimizer": True, "offload_parameters": True}
AGAIN = {"activation_checkpointing": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def spec_with(base, trainable="projector", **deepspeed):
    return spec_of(
        base,
        deepspeed=deepspeed,
        model={"moca": {"init_std": 0.02}, "trainable": trainable},
        optim={"gradient_clip": 0.05},
    )


def trained(spec, folder):
    """Losses, norms and final state of a few steps."""
    built = build_model(spec.model, spec.seed)
    loader = BatchLoader(
        spec.data, seed=spec.seed, tokenizer=built.tokenizer,
        image_processor=built.image_processor, global_batch=4, rank=0, world_size=1,
    )  # fmt: skip
    engine = Engine(built.model, spec, Place(folder=folder))
    results = [engine.step(next(loader), i) for i in range(STEPS)]
    tensors = engine.gather()
    loader.close()
    engine.close()
    return [r.loss for r in results], [r.grad_norm for r in results], tensors


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return {who: trained(spec_with(base, who), folder) for who in ("projector", "everything")}


@pytest.mark.parametrize("who", ["projector", "everything"])
@pytest.mark.parametrize(
    "settings",
    [
        {"zero_stage": 0, **AGAIN},
        {"zero_stage": 1, **HOST},
        {"zero_stage": 2, **HOST, **AGAIN},
        {"zero_stage": 3, **AGAIN},
        {"zero_stage": 3, **BOTH},
        {"zero_stage": 3, **BOTH, **AGAIN, "micro_batch": 2},
    ],
    ids=lambda settings: "-".join(settings) + str(settings["zero_stage"]),
)
def test_less_memory_gives_the_same_steps(base, plain, tmp_path, who, settings):
    losses, norms, tensors = trained(spec_with(base, who, **settings), tmp_path)
    expected = plain[who]
    assert losses == pytest.approx(expected[0], abs=1e-6)
    assert norms == pytest.approx(expected[1], rel=1e-5)
    assert tensors.keys() == expected[2].keys()
    for name, value in expected[2].items():
        torch.testing.assert_close(tensors[name], value, atol=1e-5, rtol=0)


def test_offloaded_state_is_put_back_exactly(base, tmp_path):
    spec = spec_with(base, zero_stage=3, **BOTH)
    _, _, tensors = trained(spec, tmp_path)
    weights = {k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")}
    engine = Engine(build_model(spec.model, 1).model, spec, Place(folder=tmp_path), weights)
    engine.restore(tensors, STEPS)
    again = engine.gather()
    engine.close()
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_recomputed_layers_keep_less_for_the_backward_pass(base):
    kept = []
    for again in (False, True):
        model = build_model(spec_with(base).model, 0).model
        if again:
            assert checkpoint_activations(model) == 5  # 2 of the encoder, 3 of the decoder
        saved = []

        def note(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        hidden = torch.randn(2, 9, 24, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.language.get_decoder()(inputs_embeds=hidden, use_cache=False)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 3


def test_a_model_without_layers_is_refused():
    with pytest.raises(ConfigError, match="leave it out"):
        checkpoint_activations(torch.nn.Linear(2, 2))
