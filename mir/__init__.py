"""What is the number? The Modality Integration Rate, its error bar, and MoCa.

Nothing heavy is imported here: names are resolved on first use, so that the command line and the
plain types of the floors above load without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mir.report import MirReport as MirReport
    from mir.score import score_layers as score_layers

_HOME = {"MirReport": "mir.report", "score_layers": "mir.score"}

__all__ = ["MirReport", "score_layers"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mir' has no attribute {name!r}")
