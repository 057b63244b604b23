"""One evaluation from start to end: a stream of events with exactly one terminal event.

Ranks share questions and groups of captions and put their findings together at the end; every
one of them works on its own, so there is nothing to deadlock on the way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch

from jobs.data.build import open_source
from jobs.data.sample import Sample
from jobs.downstream.ask import Asker
from jobs.downstream.match import group_loss, groups_of
from jobs.downstream.start import find_checkpoint, first_job
from jobs.engine.group import device_of, gather_objects, join
from jobs.evaluation import take
from jobs.events import TERMINAL, Evaluated, Event, Finished, Started, Stopped
from jobs.failures import failure_of
from jobs.load import Loaded, load_checkpoint
from jobs.place import Place
from jobs.spec.downstream import EvaluateSpec
from jobs.versions import versions
from mir.errors import DataError

Findings = dict[str, list[float]]


def run_evaluation(spec: EvaluateSpec, place: Place) -> Iterator[Event]:
    """Evaluate a checkpoint as one rank of a gang.

    Rank 0 yields Started, Evaluated and Finished (Stopped if it was asked to leave), other ranks
    the terminal event only. Nothing is raised: whatever goes wrong is told as Failed.
    """
    try:
        for event in _events(spec, place):
            if place.rank == 0 or isinstance(event, TERMINAL):
                yield event
    except Exception as error:  # noqa: BLE001 - every end is told, none is lost
        yield failure_of(error)


def _events(spec: EvaluateSpec, place: Place) -> Iterator[Event]:
    join(place)
    began = time.monotonic()
    loaded = load_checkpoint(find_checkpoint(spec.start))
    model = loaded.model.to(device_of(place))
    if spec.precision == "bf16":
        model.to(torch.bfloat16)
    yield Started(
        ranks=place.world_size,
        device=torch.cuda.get_device_name() if place.device == "cuda" else place.device,
        trainable={},
        versions=versions(),
    )
    share = _Share(place=place)
    _questions(spec, loaded, share)
    _captions(spec, loaded, share)
    reasons = gather_objects(share.stopped)
    everyone: list[Findings] = gather_objects(dict(share.found))
    stopped = next((reason for reason in reasons if reason is not None), None)
    if stopped is not None:
        yield Stopped(samples=loaded.samples, reason=stopped)
        return
    yield _evaluated(everyone, loaded.samples, time.monotonic() - began)
    yield Finished(samples=loaded.samples, seconds=time.monotonic() - began)


@dataclass
class _Share:
    """What this rank found, and whether it was asked to leave."""

    place: Place
    found: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    stopped: str | None = None

    def mine(self, number: int) -> bool:
        """Whether piece `number` of the work is this rank's; none is once it was asked to leave."""
        self.stopped = self.stopped or self.place.stop_requested()
        return self.stopped is None and number % self.place.world_size == self.place.rank


def _questions(spec: EvaluateSpec, loaded: Loaded, share: _Share) -> None:
    source = open_source(spec.questions, "evaluate.questions")
    limit = spec.max_bad_fraction
    asked = take(
        source, spec.question_count, "evaluate.question_count", "evaluate.questions", limit
    )
    examples: list[Sample] = []
    if max(spec.shots) > 0:
        assert spec.examples is not None
        solved = open_source(spec.examples, "evaluate.examples")
        examples = take(solved, max(spec.shots), "evaluate.shots", "evaluate.examples", limit)
    for shots in dict.fromkeys(spec.shots):
        asker = Asker(spec, loaded, examples[:shots])
        for number, batch in enumerate(asker.batches(asked)):
            if share.mine(number):
                for name, values in asker.judge(batch).items():
                    share.found[f"{name}@{shots}"] += values


def _captions(spec: EvaluateSpec, loaded: Loaded, share: _Share) -> None:
    job = first_job(loaded.spec)
    source = open_source(spec.captions or job.data.validation, "evaluate.captions")
    samples = take(
        source, spec.caption_count, "evaluate.caption_count", "evaluate.captions",
        spec.max_bad_fraction,
    )  # fmt: skip
    groups = groups_of(samples, spec.match_choices)
    if not groups:
        different = len({sample.caption for sample in samples})
        raise DataError(
            f"evaluate.captions: {len(samples)} samples have {different} different captions, too "
            f"few to choose among match_choices {spec.match_choices}: use fewer choices, or name a "
            "source of other captions"
        )
    for number, group in enumerate(groups):
        if not share.mine(number):
            continue
        losses = group_loss(
            loaded.model,
            group,
            loaded.tokenizer,
            loaded.image_processor,
            job.data.max_caption_tokens,
        )
        share.found["validation-loss"] += losses.right
        share.found["wrong-loss"] += losses.wrong
        share.found["gap"] += [w - r for w, r in zip(losses.wrong, losses.right, strict=True)]
        share.found["caption-match"] += losses.captions_found
        share.found["picture-match"] += losses.pictures_found


def _evaluated(everyone: list[Findings], samples: int, seconds: float) -> Evaluated:
    names = list(dict.fromkeys(name for findings in everyone for name in findings))
    whole = {name: [v for f in everyone for v in f.get(name, [])] for name in names}
    return Evaluated(
        samples=samples,
        values={name: fmean(values) for name, values in whole.items()},
        errors={
            name: stdev(values) / len(values) ** 0.5
            for name, values in whole.items()
            if len(values) > 1
        },
        counts={name: len(values) for name, values in whole.items()},
        seconds=seconds,
    )
