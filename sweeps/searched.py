"""What a search space ranges over: the fields of a job, and on how many ranks it runs."""

from __future__ import annotations

from jobs.spec import Frozen, JobSpec, PositiveInt

RANKS = ("resources", "workers")


class Ranks(Frozen):
    """What of a job's resources may vary; the rest is equal for all jobs of a study."""

    workers: PositiveInt = 1


class Searched(JobSpec):
    """A job on its ranks. They stand beside the job, because they do not change its numbers."""

    resources: Ranks = Ranks()


def searched(base: JobSpec, workers: int) -> Searched:
    """The base of a space."""
    return Searched.model_validate({**base.model_dump(), "resources": {"workers": workers}})
