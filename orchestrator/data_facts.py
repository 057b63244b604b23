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
from jobs.data.repeats import elsewhere, overlap, repeated
from jobs.data.sample import Source
from jobs.data.survey import Survey, survey
from jobs.spec import JobSpec, SourceSpec
from mir.errors import ConfigError, MirsweepError

VALIDATION, PICTURES = "validation", "score.images"
_STEPS = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """samples: that stand a second time or more, or also elsewhere. examples: what, in words."""

    samples: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """One source. name: as in the recipe; error: why it could not be read at all.

    reads: how many samples the base's job would read from it. bad: count and examples by reason.
    widths, heights, lengths: smallest, 5 %, median, 95 %, largest. cut: captions longer than
    data.max_caption_tokens (counted where the unit is tokens).
    elsewhere: pictures that other training sources have too. in_training: pictures of a
    validation source that are trained on.
    """

    name: str
    training: bool
    samples: int = 0
    read: int = 0
    reads: float = 0.0
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
class DataFacts:
    """All sources of a recipe. unit: of caption lengths, 'tokens' or 'words'.

    mixture_error: why no job can mix the sources as the recipe says.
    """

    unit: str
    max_caption_tokens: int
    max_bad_fraction: float
    sources: tuple[SourceFacts, ...]
    mixture_error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def problems(self) -> list[str]:
        """Why the base's job would end, its bad samples weighed as the job itself does.

        Trials with another mixture may end where this one does not: see `weight_limit`.
        """
        found = [_placed(source) for source in self.sources if source.error]
        found += [f"base.{self.mixture_error}"] if self.mixture_error else []
        found += [
            f"{_place(source)}: none of the {source.read:,} samples read can be used "
            f"({_worst(source)}): mend the data"
            for source in self.sources
            if source.reads and source.bad and source.bad_count == source.read
        ]
        together = [source for source in self.sources if source.training]
        for group in (together, *([source] for source in self.sources if not source.training)):
            found += self._too_many(group)
        return found

    def _too_many(self, group: list[SourceFacts]) -> list[str]:
        """What to say where bad samples of sources that are counted together are too many."""
        reads = sum(source.reads for source in group)
        bad = sum(source.bad_share * source.reads for source in group)
        if not too_many_bad(bad, reads, self.max_bad_fraction):
            return []
        worst = max(group, key=lambda source: source.bad_share * source.reads)
        return [
            f"{_place(worst)}: {worst.bad_count:,} of {worst.read:,} samples cannot be used "
            f"({_worst(worst)}): {100 * bad / reads:.3g} % of what a job reads, more than "
            f"max_bad_fraction {self.max_bad_fraction:g} allows: mend the data or raise the limit"
        ]

    def weight_limit(self, source: SourceFacts) -> float | None:
        """The weight above which a training source alone ends a job; None where it never does."""
        if not source.training or source.bad_share <= self.max_bad_fraction:
            return None
        return self.max_bad_fraction / source.bad_share


def _worst(source: SourceFacts) -> str:
    reason = max(source.bad, key=lambda reason: source.bad[reason][0])
    return f"{reason}: {source.bad[reason][0]:,}"


def _place(source: SourceFacts) -> str:
    """The field of the recipe."""
    return f"base.{PICTURES}" if source.name == PICTURES else f"base.data.{source.name}"


def _placed(source: SourceFacts) -> str:
    """The error with the field of the recipe, which some errors name themselves."""
    if source.error.startswith(("data.", PICTURES)):
        return f"base.{source.error}"
    return f"{_place(source)}: {source.error}"


def named_sources(job: JobSpec) -> dict[str, SourceSpec]:
    """What a job reads by its place in the recipe; training sources first."""
    found = {f"sources.{name}": source for name, source in job.data.sources.items()}
    found[VALIDATION] = job.data.validation
    if job.score.images is not None:
        found[PICTURES] = job.score.images
    return found


@dataclass
class Read:
    """One source with its survey; neither where `error` says why it could not be read."""

    source: Source | None = None
    survey: Survey | None = None
    error: str = ""


def read_sources(
    job: JobSpec,
    *,
    limit: int | None,
    threads: int,
    on_open: Callable[[str, int], Callable[[int], None]],
) -> Iterator[tuple[str, Read]]:
    """Open and read one source after the other.

    on_open: told a source's name and how many samples will be read of it; what it returns hears
    how many more were.
    """
    measure, _ = caption_measure(job.model.language)
    for name, spec in named_sources(job).items():
        try:
            source = open_source(spec, f"data.{name}" if name != PICTURES else name)
            total = len(source) if limit is None else min(limit, len(source))
            tell = on_open(name, total)
            found = survey(source, measure, limit=limit, threads=threads, on_read=tell)
        except MirsweepError as error:
            yield name, Read(error=str(error))
        else:
            yield name, Read(source, found)


def data_facts(job: JobSpec, read: Mapping[str, Read]) -> DataFacts:
    """All that is told of what was read."""
    _, unit = caption_measure(job.model.language)
    training = {n: r for n, r in read.items() if n.startswith("sources.") and r.survey}
    limit = job.data.max_caption_tokens - 1  # the end-of-sequence token takes one
    weights, mixture_error = _weights(job, training)
    sources = tuple(
        replace(
            _source_facts(name, one, training, limit if unit == "tokens" else None),
            reads=_reads(job, name, one, weights),
        )
        for name, one in read.items()
    )
    return DataFacts(
        unit=unit,
        max_caption_tokens=job.data.max_caption_tokens,
        max_bad_fraction=job.data.max_bad_fraction,
        sources=sources,
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


def _reads(job: JobSpec, name: str, one: Read, weights: Mapping[str, float]) -> float:
    """How many samples a job reads of a source: of what is scored on, until it has enough."""
    if name.startswith("sources."):
        return weights.get(name, 0.0) * _run_samples(job)
    if one.survey is None:
        return 0.0
    wanted = {VALIDATION: job.data.validation_samples, PICTURES: job.score.pairs}[name]
    if name == VALIDATION and job.score.images is None:
        wanted = max(wanted, job.score.pairs)
    good = 1 - one.survey.bad_count / max(1, one.survey.read)
    return min(float(one.survey.size), wanted / max(good, 1e-9))


def _source_facts(
    name: str, one: Read, training: Mapping[str, Read], limit: int | None
) -> SourceFacts:
    is_training = name.startswith("sources.")
    if one.survey is None or one.source is None:
        return SourceFacts(name=name, training=is_training, error=one.error)
    found = one.survey
    others = {n: r for n, r in training.items() if n != name}
    surveys = [r.survey for r in others.values() if r.survey is not None]
    return SourceFacts(
        name=name,
        training=is_training,
        samples=found.size,
        read=found.read,
        bad={reason: (bad.count, tuple(bad.examples)) for reason, bad in found.bad.items()},
        widths=spread(found.widths),
        heights=spread(found.heights),
        lengths=spread(found.lengths),
        cut=0 if limit is None else sum(length > limit for length in found.lengths),
        same_picture=_repeated(one.source, found, found.pictures),
        same_caption=_repeated(one.source, found, found.captions, quoted=True),
        elsewhere=elsewhere(found, surveys) if is_training else 0,
        in_training={} if is_training else _in_training(one, others),
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
