"""What the recipes vary of the model can be built and learns: every branch of the shipped ones."""

import random
from pathlib import Path

import pytest
import torch

from jobs.data.batch import collate
from jobs.data.build import open_source
from jobs.model.build import build_model
from jobs.spec import JobSpec
from orchestrator.views.preview import _Draws
from sweeps.recipe import load_recipe
from sweeps.space import space_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

RECIPES = Path(__file__).parents[2] / "sweeps" / "recipes"
VARIANTS = 40


def jobs_of(recipe: str) -> list[JobSpec]:
    """One job for every kind of model among many random draws."""
    spec = load_recipe(RECIPES / f"{recipe}.yaml")
    space, draws = space_of(spec), _Draws(random.Random(0))
    found = {}
    for _ in range(VARIANTS):
        job = space.job(space.draw(draws))[0]
        moca = job.model.moca and job.model.moca.kind
        kind = (job.model.learns.parts, job.model.projector, job.model.projector_norm, moca)
        found.setdefault(kind, job)
    return list(found.values())


@pytest.mark.parametrize(
    ("recipe", "kinds"),
    [("unlocking", 5), ("projector", 10), ("moca-ablation", 6), ("mixture-of-experts", 2)],
)
def test_every_kind_of_model_in_a_recipe_learns(recipe, kinds):
    jobs = jobs_of(recipe)
    assert len(jobs) == kinds
    source = open_source(jobs[0].data.validation)
    for job in jobs:
        built = build_model(job.model, job.seed)
        batch = collate([source[i] for i in range(2)], built.tokenizer, built.image_processor, 64)
        built.model.train()
        built.model(batch).backward()
        learning = {n: p.grad for n, p in built.model.named_parameters() if p.requires_grad}
        assert set(built.model.trainable_counts()) <= {"projector", "language", "vision", "lora",
                                                       "moca"}  # fmt: skip
        moved = [grad for grad in learning.values() if grad is not None and bool(grad.any())]
        assert len(moved) > 1 and all(torch.isfinite(grad).all() for grad in moved)
