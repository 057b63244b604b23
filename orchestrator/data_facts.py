"""What `mirsweep data check` found, as plain values: for people, for programs, for the sheet."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.data.build import open_source
from jobs.data.lengths import caption_measure
from jobs.data.repeats import elsewhere, overlap, repeated
from jobs.data.sample import Source
from jobs.data.survey import Survey, survey
from jobs.spec import JobSpec, SourceSpec
from mir.errors import MirsweepError

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

    bad: count and examples by reason. widths, heights, lengths: smallest, 5 %, median, 95 %,
    largest. cut: captions longer than data.max_caption_tokens (counted where the unit is tokens).
    elsewhere: pictures that other training sources have too. in_training: pictures of a
    validation source that are trained on.
    """

    name: str
    training: bool
    samples: int = 0
    read: int = 0
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


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """All sources of a recipe. unit: of caption lengths, 'tokens' or 'words'."""

    unit: str
    max_caption_tokens: int
    max_bad_fraction: float
    sources: tuple[SourceFacts, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def problems(self) -> list[str]:
        """Why a job would end: sources that cannot be read, or with too many bad samples."""
        found = [_placed(source) for source in self.sources if source.error]
        for source in self.sources:
            if source.training and source.bad_count > self.max_bad_fraction * source.read:
                worst = max(source.bad, key=lambda reason: source.bad[reason][0])
                found.append(
                    f"base.data.{source.name}: {source.bad_count:,} of {source.read:,} samples "
                    f"cannot be used ({worst}: {source.bad[worst][0]:,}), more than "
                    f"max_bad_fraction {self.max_bad_fraction:g} allows: mend the data or raise "
                    "the limit"
                )
        return found


def _placed(source: SourceFacts) -> str:
    """The error with the field of the recipe, which some errors name themselves."""
    if source.error.startswith(("data.", PICTURES)):
        return f"base.{source.error}"
    place = PICTURES if source.name == PICTURES else f"data.{source.name}"
    return f"base.{place}: {source.error}"


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
    sources = tuple(
        _source_facts(name, one, training, limit if unit == "tokens" else None)
        for name, one in read.items()
    )
    return DataFacts(
        unit=unit,
        max_caption_tokens=job.data.max_caption_tokens,
        max_bad_fraction=job.data.max_bad_fraction,
        sources=sources,
    )


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
