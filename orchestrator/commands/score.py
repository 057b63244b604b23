"""`mirsweep score`: the MIR of any image-text model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mir.errors import ConfigError
from mir.memory import Memory
from mir.report import MirReport, Variant
from orchestrator.scoring.inputs import choose_pairs
from orchestrator.scoring.limits import choose_memory
from orchestrator.scoring.processor import Template
from orchestrator.views.text import count, number, percent, plus_minus

if TYPE_CHECKING:
    from rich.table import Table


Model = Annotated[
    str,
    typer.Argument(
        help="Folder of a transformers model, hub name, or checkpoint of mirsweep.",
        metavar="MODEL",
    ),
]
Images = Annotated[Path, typer.Option(help="Folder of pictures, or a file with one path a line.")]
Texts = Annotated[
    Path,
    typer.Option(
        help="Folder of .txt or .story files (a story ends at its first @highlight), or a file "
        "with one text a line."
    ),
]
Pairs = Annotated[
    int, typer.Option(min=2, help="Pairs of the n-th picture with the n-th text, in order.")
]
MaxTextTokens = Annotated[
    int | None, typer.Option(min=1, help="Text tokens that count, a pair; all if not given.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")]
BatchSize = Annotated[str, typer.Option(help="auto, or pairs a forward pass.")]
Where = Annotated[
    str,
    typer.Option(
        help="The most memory that scoring may add to the model's own, such as 4GiB; or where "
        "tokens are kept: device, host, passes (groups of layers); auto takes the first that fits."
    ),
]
As = Annotated[
    Template,
    typer.Option(
        help="How a pair becomes a prompt: chat (text beside the picture in the user's turn), "
        "answer (text as the answer, as in the paper's code), plain (text after the picture); "
        "auto is chat where the model has a chat template, or what a checkpoint's job used."
    ),
]
Json = Annotated[Path | None, typer.Option(help="Write the report here as JSON.")]
Plot = Annotated[
    Path | None, typer.Option(help="Draw distance by layer here (.png, .svg or .pdf).")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that the model brings.")
]


def score(
    model: Model,
    images: Images,
    texts: Texts,
    pairs: Pairs = 100,
    variant: Annotated[Variant, typer.Option(help="Which distance.")] = "exact",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
    max_text_tokens: MaxTextTokens = None,
    template: As = "auto",
    memory: Where = "auto",
    json: Json = None,
    plot: Plot = None,
    trust_remote_code: Trust = False,
) -> None:
    """Score how well vision and text mix in a model: its MIR, lower is better.

    Under torchrun the pairs are shared by all ranks; the result is the same.
    """
    from orchestrator.scoring.logged import logged_beside
    from orchestrator.scoring.picture import ENDINGS, draw_layers
    from orchestrator.scoring.stored import Score, check_writable, write_score

    memory_wanted = _memory(memory)
    check_writable("--json", json)
    check_writable("--plot", plot, ENDINGS)
    evaluation = choose_pairs(images, texts, pairs)

    from orchestrator.scoring.run import Request, score_pairs

    request = Request(
        model=model,
        variant=variant,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        max_text_tokens=max_text_tokens,
        memory=memory_wanted,
        template=template,
        trust_remote_code=trust_remote_code,
    )
    with _Bar() as bar:
        report, rank = score_pairs(request, evaluation, bar.show)
    if rank > 0:
        return
    _print(report, logged_beside(model, report))
    result = Score(model=model, report=report)
    if json is not None:
        write_score(result, json)
        typer.echo(f"report: {json}")
    if plot is not None:
        draw_layers([result], [Path(model).name or model], plot)
        typer.echo(f"picture: {plot}")


def _memory(text: str) -> Memory | int:
    try:
        return choose_memory(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from error


def _print(report: MirReport, note: str | None) -> None:
    from rich.console import Console

    first, protocol = report.layers[0], report.protocol
    typer.echo(
        f"MIR {plus_minus(report.mir, report.standard_error)} ({report.variant}, "
        f"{protocol.pairs} pairs, template {protocol.template}, "
        f"{count(first.vision_tokens)} vision and {count(first.text_tokens)} text tokens)"
    )
    typer.echo(f"fingerprint {report.fingerprint}")
    if note is not None:
        typer.echo(note)
    Console().print(_table(report))


def _table(report: MirReport) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in ("layer", "distance", "share", "text scale", "vision outliers", "text outliers"):
        table.add_column(name, justify="right")
    for layer in report.layers:
        table.add_row(
            str(layer.layer),
            number(layer.distance),
            percent(layer.share),
            number(layer.text_scale),
            count(layer.vision_outliers),
            count(layer.text_outliers),
        )
    return table


class _Bar:
    """A progress bar on stderr, on a terminal only; one task at a time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar called `what`, making it the first time."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
