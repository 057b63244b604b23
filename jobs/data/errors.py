"""What a source raises for one sample that cannot be used; the loader skips and counts it."""

from __future__ import annotations


class BadSample(Exception):  # noqa: N818 - a signal to the loader, not an error for the user
    """One picture or caption is unusable.

    reason: one of few fixed phrases, so that counts by reason stay readable.
    key: names the sample, e.g. 'captions.jsonl:17'.
    """

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.reason = reason
        self.key = key
