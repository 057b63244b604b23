"""A job as a value: everything that decides what a run computes, and nothing else.

Resources (how many ranks, on what) are not part of it: the same job gives the same numbers
however it is sharded, so they must not change its identity.
"""

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt
from jobs.spec.data import DataSpec, SourceSpec
from jobs.spec.job import JobSpec
from jobs.spec.model import MocaSpec, ModelSpec, RandomLanguage, RandomVision
from jobs.spec.score import ScoreSpec, TextsSpec
from jobs.spec.training import CheckpointSpec, DeepspeedSpec, OptimSpec

__all__ = [
    "CheckpointSpec",
    "DataSpec",
    "DeepspeedSpec",
    "Frozen",
    "JobSpec",
    "MocaSpec",
    "ModelSpec",
    "NonNegativeFloat",
    "OptimSpec",
    "PositiveFloat",
    "PositiveInt",
    "RandomLanguage",
    "RandomVision",
    "ScoreSpec",
    "SourceSpec",
    "TextsSpec",
]
