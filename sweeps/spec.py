"""A sweep as a value: what stays, what varies, how to choose, when to stop, what it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from jobs.spec import Frozen, JobSpec, NonNegativeFloat, PositiveFloat, PositiveInt

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Range(Frozen):
    """A number between low and high; `log` samples its logarithm; `integer` rounds to integers."""

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(
                f"low {self.low:g} is not below high {self.high:g}: swap or widen them"
            )
        if self.log and self.low <= 0:
            raise ValueError(
                f"low {self.low:g} has no logarithm: give a low above 0, or leave out log"
            )
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("low and high must be whole numbers where integer is true")
        return self


class Choices(Frozen):
    """One of several plain values, all different."""

    choices: Annotated[tuple[bool | int | float | str | None, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _different(self) -> Choices:
        repeated = [value for i, value in enumerate(self.choices) if value in self.choices[:i]]
        if repeated:
            raise ValueError(f"choices holds {repeated[0]!r} twice: remove one")
        return self


class Mixture(Frozen):
    """A point on the simplex over the named sources, or over all of the job's.

    floor: least weight of each source. fixed: weights that do not vary.
    max_epochs: cap on weight x samples / size of a source.
    """

    mixture: Literal["all"] | tuple[str, ...] = "all"
    floor: NonNegativeFloat = 0.0
    fixed: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    max_epochs: PositiveFloat | None = None


class Branches(Frozen):
    """Named alternatives with settings of their own, e.g. MoCa off, or on with an init_std.

    Each branch is a plain value (null switches the part off) or a nested space; only the chosen
    branch's parameters are sampled.
    """

    branches: Annotated[dict[str, Any], Field(min_length=1)]


class GuardSpec(Frozen):
    """Which named constraints a score must meet to count, with their parameter if they take one.

    e.g. {'loss-below-start': null, 'gap-not-negative': 2.0, 'loss-near-best': 0.1}
    """

    constraints: dict[str, float | None] = Field(
        default_factory=lambda: {"loss-below-start": None, "gap-not-negative": 2.0}
    )


AlsoName = Literal["mir", "validation-loss", "gap", "device-hours"]


class StudySpec(Frozen):
    """How the next variant is chosen.

    storage: an SQLAlchemy URL; None keeps SQLite in the study's folder.
    also: objectives beside the first, e.g. [gap, device-hours]: the search then looks for the
    whole Pareto front. Stopping and the winner go by the first.
    start: points to try first, by the names that people see, what is left out is drawn; the word
    `natural` is the base with each source weighing in proportion to its size.
    warm_start: folders of earlier studies; the best `warm_points` of each are tried first.
    grid_levels: of `grid`, places on each axis; a mixture's weights are multiples of 1 / (n - 1).
    startup_trials: trials spread over the space before a model-based sampler takes over.
    """

    sampler: Literal["gp", "tpe", "cmaes", "nsga2", "qmc", "random", "grid"] = "gp"
    objective: Literal["mir", "validation-loss", "gap"] = "mir"
    also: tuple[AlsoName, ...] = ()
    seed: int = 0
    startup_trials: PositiveInt = 6
    grid_levels: Annotated[int, Field(ge=2)] = 3
    storage: str | None = None
    guard: GuardSpec = GuardSpec()
    start: tuple[dict[str, Any] | Literal["natural"], ...] = ()
    warm_start: tuple[str, ...] = ()
    warm_points: PositiveInt = 4


class BudgetSpec(Frozen):
    """What the sweep may cost, whichever comes first.

    hours: of wall-clock time in which a controller ran and was not paused. samples: seen by all
    trials together.
    gpu_hours: of all GPUs that jobs occupied; of cores, where jobs use no GPU. cost: those hours
    at `resources.price_per_hour`.
    """

    trials: PositiveInt = 16
    hours: PositiveFloat | None = None
    samples: PositiveInt | None = None
    gpu_hours: PositiveFloat | None = None
    cost: PositiveFloat | None = None


RuleName = Literal[
    "none", "median", "percentile", "successive-halving", "hyperband", "plateau", "divergence"
]


class RuleSpec(Frozen):
    """One stopping rule with its parameters; those of `StopSpec` explain the shared ones.

    patience: of `plateau`, scores without a gain beyond error bars that stop a trial, unless no
    other is better. factor: of `divergence`, multiple of its own lowest validation loss; between
    scores, of its lowest training loss, where it is also above its beginning.
    """

    rule: RuleName
    min_trials: PositiveInt = 4
    percentile: Annotated[float, Field(gt=0, lt=100)] = 50.0
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    patience: PositiveInt = 3
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0


class StopSpec(Frozen):
    """When a trial is stopped before its full budget.

    rule: compares trials at equal samples; 'none' switches it off. min_samples: no score before
    it takes part (None: past warm-up and the first quarter). confidence: level at which two
    error bars must separate, 0 ignores them. audit: share of would-be-stopped trials that run on.
    infeasible_patience: consecutive infeasible scores past min_samples that stop a trial, 0 never.
    min_trials: fewest other trials to compare with. reduction_factor: at each rung of successive
    halving and Hyperband the best 1 in so many goes on; rungs lie at min_samples times its powers.
    rules: several at once instead of `rule`, each a name or a name with parameters; the first that
    says so stops the trial.
    pause: a trial that a comparison would stop keeps its checkpoint, and is resumed when the rule
    would let it go on by now, or when there is room and no better use for it. Compared at equal
    samples, it then runs at least to `reduction_factor` times the samples at which it was paused.
    """

    rule: RuleName = "median"
    rules: tuple[RuleSpec, ...] | None = None
    min_samples: PositiveInt | None = None
    min_trials: PositiveInt = 4
    percentile: Annotated[float, Field(gt=0, lt=100)] = 50.0
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.8
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    infeasible_patience: Annotated[int, Field(ge=0)] = 2
    pause: bool = False

    @field_validator("rules", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        """A name stands for a rule with its default parameters."""
        if not isinstance(given, list | tuple):
            return given
        return tuple({"rule": rule} if isinstance(rule, str) else rule for rule in given)

    @property
    def chain(self) -> tuple[RuleSpec, ...]:
        """The rules in order."""
        if self.rules is not None:
            return self.rules or (RuleSpec(rule="none"),)
        one = RuleSpec(
            rule=self.rule,
            min_trials=self.min_trials,
            percentile=self.percentile,
            reduction_factor=self.reduction_factor,
        )
        return (one,)


class ResourceSpec(Frozen):
    """One job's gang of ranks and how many jobs may run at once.

    workers: number of ranks; `space.resources.workers` lets the search choose it.
    gpus_per_worker: fractions share a GPU. custom: what else a worker needs, by the names that
    the cluster's nodes give it. spread: how the workers lie on nodes: on as few as possible
    (pack), on many (spread), all on one (strict-pack), each on another (strict-spread).
    autoscale: the cluster grows by demand, so one job more than fits is always asked for.
    grace_seconds: how long a job that is asked to leave may take for its checkpoint before its
        processes are killed.
    price_per_hour: of one GPU, or of one core where jobs use no GPU.
    """

    workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    custom: dict[str, PositiveFloat] = Field(default_factory=dict)
    spread: Literal["pack", "spread", "strict-pack", "strict-spread"] = "pack"
    autoscale: bool = False
    max_concurrent: PositiveInt | None = None
    max_restarts: Annotated[int, Field(ge=0)] = 2
    grace_seconds: PositiveFloat = 30.0
    price_per_hour: PositiveFloat | None = None

    def of(self, workers: int | None) -> ResourceSpec:
        """Those of a job on another number of ranks; None leaves the recipe's own."""
        return self if workers is None else self.model_copy(update={"workers": workers})

    def share(self, workers: int | None) -> float:
        """What a job on so many ranks occupies, in jobs on the recipe's own number."""
        return 1.0 if workers is None else workers / self.workers


class TrackingSpec(Frozen):
    """uri: None keeps an SQLite store in the study's folder. experiment: None takes the name."""

    uri: str | None = None
    experiment: str | None = None


class RetentionSpec(Frozen):
    """Which checkpoints the study keeps, beside what each job's own policy keeps of its run.

    Those of stopped trials go as soon as the trial has ended. keep_best: only the best so many
    complete trials by the objective keep theirs, None lets all. quota_gib: most that all
    checkpoints may take; past it, those of failed trials go, then of the worst complete ones,
    then older ones of the trials that run. The newest of a trial that may go on always stays.
    """

    keep_best: PositiveInt | None = None
    quota_gib: PositiveFloat | None = None


class SweepSpec(Frozen):
    """A whole recipe, validated. `score` in `base` is the study's: it cannot be searched over."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    base: JobSpec
    space: dict[str, Any]
    study: StudySpec = StudySpec()
    budget: BudgetSpec = BudgetSpec()
    stop: StopSpec = StopSpec()
    resources: ResourceSpec = ResourceSpec()
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="after")
    def _priced(self) -> SweepSpec:
        if self.budget.cost is not None and self.resources.price_per_hour is None:
            raise ValueError("budget.cost needs resources.price_per_hour: give what an hour costs")
        return self

    retention: RetentionSpec = RetentionSpec()
