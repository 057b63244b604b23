"""`mirsweep correlate`: whether MIR, or what else, predicts what comes after pre-training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.files import written_whole
from mir.errors import ConfigError, MirsweepError
from orchestrator.commands.options import AsJson, Study, print_json
from orchestrator.commands.preflight import check_data, check_evaluation
from orchestrator.commands.run import ExecutorName
from orchestrator.commands.studies import load_study
from orchestrator.failures import INTERRUPTED, same_command, say_error

if TYPE_CHECKING:
    from jobs.spec.downstream import DownstreamSpec
    from orchestrator.correlate.choose import Candidate
    from orchestrator.correlate.outcome import Outcome
    from orchestrator.correlate.results import Results
    from orchestrator.ports import Executor
    from orchestrator.state import SweepView

_RECIPES = Path("sweeps/recipes/downstream")
MEASURE = "exact-match@0"


def correlate(
    study: Study,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best so many trials.")] = None,
    stratified: Annotated[
        int | None, typer.Option(min=2, help="So many trials spread evenly over the ranks of MIR.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="How to fine-tune and evaluate; the embedded world's if not given."),
    ] = None,
    measure: Annotated[str, typer.Option(help="Downstream score to hold MIR against.")] = MEASURE,
    executor: Annotated[ExecutorName, typer.Option(help="What runs the jobs.")] = ExecutorName.RAY,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the fine-tuned weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune and evaluate a study's trials: can MIR be trusted here?

    Run it again to go on after an interruption; what is finished is not done again.
    """
    from orchestrator.correlate.choose import candidates, choose
    from orchestrator.correlate.results import Results

    folder, view = load_study(study)
    plan = _recipe(recipe, view)
    able, left_out = candidates(view, folder)
    chosen = choose(able, top, stratified, view.spec.name)
    say = _sayer(quiet=as_json)
    for line in left_out:
        say(line)
    results = Results(folder, plan)
    ended_early = _work(chosen, plan, view, results, (executor, address, keep), say)
    found = _outcome(view, measure, chosen, results)
    if found.points:
        _show(found, results.folder, as_json)
    if ended_early:
        say_error(f"interrupted: {len(found.points)} of {len(chosen)} trials: {same_command()}")
        raise typer.Exit(INTERRUPTED)
    if len(found.points) < len(chosen):
        missing = len(chosen) - len(found.points)
        raise MirsweepError(
            f"{missing} of {len(chosen)} trials have no downstream score; the lines above say why. "
            f"What was done is kept: {same_command()}"
        )


def _recipe(path: Path | None, view: SweepView) -> DownstreamSpec:
    """The recipe, checked before anything is made."""
    import sweeps
    from sweeps.recipe import load_downstream

    if path is None and view.spec.base.model.language != "embedded":
        raise ConfigError(
            f"--recipe: study {view.spec.name!r} does not use the embedded models, so say how to "
            f"fine-tune and evaluate it, e.g. --recipe {_RECIPES / 'easy-vqa.yaml'}"
        )
    shipped = Path(sweeps.__file__).parent / "recipes" / "downstream" / "world.yaml"
    place = path or shipped
    plan = load_downstream(place)
    if plan.finetune is not None:
        check_data(f"{place}: finetune.data", plan.finetune.data)
    check_evaluation(f"{place}: evaluate.", plan.evaluate)
    return plan


def _work(
    chosen: list[Candidate],
    plan: DownstreamSpec,
    view: SweepView,
    results: Results,
    how: tuple[ExecutorName, str | None, bool],
    say: Callable[[str], None],
) -> bool:
    """Run what has no result yet; whether it was interrupted."""
    from orchestrator.correlate.loop import Downstream
    from orchestrator.lease import lease
    from orchestrator.signals import listening

    todo = [one for one in chosen if results.get(one) is None]
    if not todo:
        return False
    if len(todo) < len(chosen):
        say(f"going on: {len(chosen) - len(todo)} of {len(chosen)} trials are done")
    name, address, keep = how
    results.open()
    with lease(results.folder), listening() as interrupt:
        runner = _executor(name, address)
        try:
            Downstream(plan, view.spec.resources, runner, results, say=say, keep=keep).run(
                todo, interrupt
            )
        finally:
            runner.close()
    return interrupt.name is not None


def _executor(name: ExecutorName, address: str | None) -> Executor:
    if name is ExecutorName.INLINE:
        from orchestrator.executors.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.executors.ray_executor import RayExecutor

    return RayExecutor(address=address)


def _outcome(view: SweepView, measure: str, chosen: list[Candidate], results: Results) -> Outcome:
    from orchestrator.correlate.outcome import outcome

    kept = {one.trial.number: results.get(one) for one in chosen}
    found = {number: result for number, result in kept.items() if result is not None}
    trials = [one.trial for one in chosen]
    return outcome(view.spec.name, measure, str(results.folder), trials, found)


def _show(found: Outcome, folder: Path, as_json: bool) -> None:
    import json

    from orchestrator.report.correlation import table, within_lines, write_page
    from orchestrator.report.correlation_png import write_picture
    from orchestrator.views.terminal import terminal

    picture, page = write_picture(found, folder), write_page(found, folder)
    whole = {**found.to_json(), "picture": str(picture), "page": str(page)}
    with written_whole(folder / "outcome.json") as part:
        part.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    if as_json:
        print_json(whole)
        return
    terminal().print(table(found))
    typer.echo("\n".join([found.sentence, *within_lines(found)]))
    typer.echo(f"page: {page}\npicture: {picture}")


def _sayer(*, quiet: bool) -> Callable[[str], None]:
    """Says lines with the time of day; on stderr where stdout is for programs."""
    return lambda line: typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=quiet)
