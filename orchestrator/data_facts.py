"""What `mirsweep data check` found, as plain values: for people, for programs, for the sheet."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jobs.data.build import open_source
from jobs.data.caps import capped_weights
from jobs.data.errors import too_many_bad
from jobs.data.lengths import caption_measure
from jobs.data.listing import ListingSource
from jobs.data.repeats import elsewhere, overlap, repeated
from jobs.data.sample import Source
from jobs.data.survey import Survey, survey
from jobs.spec import JobSpec
from mir.errors import ConfigError, MirsweepError
from orchestrator.data_choices import PICTURES, VALIDATION, DataChoices, Variant, is_training

_STEPS = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """samples: that stand a second time or more, or also elsewhere. examples: what, in words."""

    samples: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """One source. name: as in the recipe; error: why it could not be read at all.

    where: the choice of the space that reads it, which ends its name too; empty in the base.
    reads: how many samples that job would read from it. bad: count and examples by reason.
    without_picture: entries of its list that have none, left out of the samples.
    widths, heights, lengths: smallest, 5 %, median, 95 %, largest. cut: captions longer than
    data.max_caption_tokens (counted where the unit is tokens).
    elsewhere: pictures that other training sources of a job with it have too. in_training:
    pictures of a validation source that are trained on.
    """

    name: str
    training: bool
    where: str = ""
    samples: int = 0
    read: int = 0
    reads: float = 0.0
    without_picture: int = 0
    error: str = ""
    bad: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    heights: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    cut: int = 0
    same_picture: Repeated = Repeated()
    same_caption: Repeated = Repeated()
    elsewhere: int = 0
    in_training: Mapping[str, Repeated] = field(default_factory=dict)

    @property
    def bad_count(self) -> int:
        """Samples that cannot be used."""
        return sum(count for count, _ in self.bad.values())

    @property
    def bad_share(self) -> float:
        """Share of what was read that cannot be used."""
        return self.bad_count / max(1, self.read)


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What one job reads. where: the choice of the space that makes it, empty for the base's.

    reads: samples by the source's name. mixture_error: why it cannot mix its sources.
    """

    where: str
    reads: Mapping[str, float]
    max_bad_fraction: float
    mixture_error: str = ""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """All sources of a recipe. unit: of caption lengths, 'tokens' or 'words'.

    jobs: the base's, then one for each choice of the space that reads other sources.
    """

    unit: str
    max_caption_tokens: int
    max_bad_fraction: float
    sources: tuple[SourceFacts, ...]
    jobs: tuple[JobFacts, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "mixture_error": self.jobs[0].mixture_error}

    def problems(self) -> list[str]:
        """Why a job would end, its bad samples weighed as the job itself does; a line a source.

        Trials with another mixture may end where these do not: see `weight_limit`.
        """
        found = [_placed(source) for source in self.sources if source.error]
        found += [_at(job.where, job.mixture_error) for job in self.jobs if job.mixture_error]
        read = {name for job in self.jobs for name, reads in job.reads.items() if reads}
        found += [
            f"{_place(source)}: none of the {source.read:,} samples read can be used "
            f"({_worst(source)}): mend the data"
            for source in self.sources
            if source.name in read and source.bad and source.bad_count == source.read
        ]
        too_many: dict[str, str] = {}
        for job in self.jobs:
            mine = [source for source in self.sources if source.name in job.reads]
            together = [source for source in mine if source.training]
            for group in (together, *([source] for source in mine if not source.training)):
                too_many = _too_many(group, job) | too_many
        return found + [f"{place}: {text}" for place, text in too_many.items()]

    def weight_limit(self, source: SourceFacts) -> float | None:
        """The weight above which a training source alone ends a job; None where it never does."""
        if not source.training or source.bad_share <= self.max_bad_fraction:
            return None
        return self.max_bad_fraction / source.bad_share


def _too_many(group: list[SourceFacts], job: JobFacts) -> dict[str, str]:
    """By place, what to say where bad samples of sources that are counted together are too many."""
    reads = sum(job.reads[source.name] for source in group)
    bad = {source.name: source.bad_share * job.reads[source.name] for source in group}
    if not too_many_bad(sum(bad.values()), reads, job.max_bad_fraction):
        return {}
    worst = max(group, key=lambda source: bad[source.name])
    text = (
        f"{worst.bad_count:,} of {worst.read:,} samples cannot be used ({_worst(worst)}): "
        f"{100 * sum(bad.values()) / reads:.3g} % of what a job reads, more than "
        f"max_bad_fraction {job.max_bad_fraction:g} allows: mend the data or raise the limit"
    )
    return {_place(worst): text}


def _worst(source: SourceFacts) -> str:
    reason = max(source.bad, key=lambda reason: source.bad[reason][0])
    return f"{reason}: {source.bad[reason][0]:,}"


def _at(where: str, text: str) -> str:
    """A text that begins with a field of a job, said of the base or of a choice."""
    return f"where {where}: {text}" if where else f"base.{text}"


def _place(source: SourceFacts) -> str:
    """The field of the recipe."""
    field = source.name.removesuffix(f" where {source.where}")
    return _at(source.where, field if field == PICTURES else f"data.{field}")


def _placed(source: SourceFacts) -> str:
    """The error with the field of the recipe, which some errors name themselves."""
    if source.error.startswith(("data.", PICTURES)):
        return _at(source.where, source.error)
    return f"{_place(source)}: {source.error}"


@dataclass
class Read:
    """One source with its survey; neither where `error` says why it could not be read."""

    source: Source | None = None
    survey: Survey | None = None
    error: str = ""


def read_sources(
    choices: DataChoices,
    *,
    limit: int | None,
    threads: int,
    on_open: Callable[[str, int], Callable[[int], None]],
) -> Iterator[tuple[str, Read]]:
    """Open and read one source after the other.

    on_open: told a source's name and how many samples will be read of it; what it returns hears
    how many more were.
    """
    measure, _ = caption_measure(choices.variants[0].job.model.language)
    for name, chosen in choices.sources.items():
        place = chosen.place
        try:
            source = open_source(chosen.spec, f"data.{place}" if place != PICTURES else place)
            total = len(source) if limit is None else min(limit, len(source))
            tell = on_open(name, total)
            found = survey(source, measure, limit=limit, threads=threads, on_read=tell)
        except MirsweepError as error:
            yield name, Read(error=str(error))
        else:
            yield name, Read(source, found)


def data_facts(choices: DataChoices, read: Mapping[str, Read]) -> DataFacts:
    """All that is told of what was read."""
    base = choices.variants[0].job
    _, unit = caption_measure(base.model.language)
    limit = base.data.max_caption_tokens - 1  # the end-of-sequence token takes one
    jobs = tuple(_job_facts(variant, read) for variant in choices.variants)
    sources = []
    for name, chosen in choices.sources.items():
        one = read[name]
        facts = SourceFacts(
            name=name,
            training=is_training(chosen.place),
            where=chosen.where,
            reads=next(job.reads[name] for job in jobs if name in job.reads),
            error=one.error,
        )
        beside = {other: read[other] for other in choices.beside(name) if read[other].survey}
        sources.append(_surveyed(facts, one, beside, limit if unit == "tokens" else None))
    return DataFacts(
        unit=unit,
        max_caption_tokens=base.data.max_caption_tokens,
        max_bad_fraction=base.data.max_bad_fraction,
        sources=tuple(sources),
        jobs=jobs,
    )


def _job_facts(variant: Variant, read: Mapping[str, Read]) -> JobFacts:
    mine = {place: read[name] for place, name in variant.names.items()}
    training = {place: one for place, one in mine.items() if is_training(place) and one.survey}
    weights, mixture_error = _weights(variant.job, training)
    return JobFacts(
        where=variant.where,
        reads={variant.names[at]: _reads(variant.job, at, mine[at], weights) for at in mine},
        max_bad_fraction=variant.job.data.max_bad_fraction,
        mixture_error=mixture_error,
    )


def _run_samples(job: JobSpec) -> int:
    return job.optim.steps * job.optim.global_batch


def _weights(job: JobSpec, training: Mapping[str, Read]) -> tuple[dict[str, float], str]:
    """Weights by the source's place, within the caps if all sizes are known; what is wrong."""
    weights = {f"sources.{name}": weight for name, weight in job.data.weights.items()}
    used = {name: weight for name, weight in weights.items() if weight > 0}
    if not job.data.max_epochs or not set(used) <= set(training):
        return weights, ""
    sizes = {name: one.survey.size for name, one in training.items() if one.survey}
    caps = {f"sources.{name}": epochs for name, epochs in job.data.max_epochs.items()}
    try:
        return capped_weights(used, sizes, caps, _run_samples(job)), ""
    except ConfigError as error:
        return weights, str(error)


def _reads(job: JobSpec, place: str, one: Read, weights: Mapping[str, float]) -> float:
    """How many samples a job reads of a source: of what is scored on, until it has enough."""
    if is_training(place):
        return weights.get(place, 0.0) * _run_samples(job)
    if one.survey is None:
        return 0.0
    wanted = {VALIDATION: job.data.validation_samples, PICTURES: job.score.pairs}[place]
    if place == VALIDATION and job.score.images is None:
        wanted = max(wanted, job.score.pairs)
    good = 1 - one.survey.bad_count / max(1, one.survey.read)
    return min(float(one.survey.size), wanted / max(good, 1e-9))


def _surveyed(
    facts: SourceFacts, one: Read, beside: Mapping[str, Read], limit: int | None
) -> SourceFacts:
    """The facts with what the survey found; beside: the training sources of jobs with it."""
    if one.survey is None or one.source is None:
        return facts
    found = one.survey
    surveys = [other.survey for other in beside.values() if other.survey is not None]
    return replace(
        facts,
        samples=found.size,
        without_picture=one.source.without_picture if isinstance(one.source, ListingSource) else 0,
        read=found.read,
        bad={reason: (bad.count, tuple(bad.examples)) for reason, bad in found.bad.items()},
        widths=spread(found.widths),
        heights=spread(found.heights),
        lengths=spread(found.lengths),
        cut=0 if limit is None else sum(length > limit for length in found.lengths),
        same_picture=_repeated(one.source, found, found.pictures),
        same_caption=_repeated(one.source, found, found.captions, quoted=True),
        elsewhere=elsewhere(found, surveys) if facts.training else 0,
        in_training={} if facts.training else _in_training(one, beside),
    )


def spread(values: array[int]) -> tuple[int, ...]:
    """Smallest, 5 %, median, 95 % and largest (each one that occurs); empty for no values."""
    ordered = sorted(values)
    return tuple(ordered[round(step * (len(ordered) - 1))] for step in _STEPS if ordered)


def _repeated(
    source: Source, found: Survey, column: array[int], *, quoted: bool = False
) -> Repeated:
    repeats = repeated(column, found.indices)
    examples = []
    for times, first, second in repeats.examples:
        what = f": {shortened(source.caption(first))!r}" if quoted else ""
        keys = f"{source[first].key} and {source[second].key}"
        examples.append(f"{times} times{what}, e.g. {keys}")
    return Repeated(samples=repeats.samples, examples=tuple(examples))


def shortened(text: str, most: int = 60) -> str:
    """The beginning of a long text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _in_training(one: Read, training: Mapping[str, Read]) -> dict[str, Repeated]:
    found: dict[str, Repeated] = {}
    for name, other in training.items():
        assert one.survey and other.survey and one.source and other.source
        shared = overlap(one.survey, other.survey)
        if shared.samples:
            examples = tuple(
                f"{one.source[a].key} is {other.source[b].key}" for a, b in shared.examples
            )
            found[name] = Repeated(samples=shared.samples, examples=examples)
    return found
