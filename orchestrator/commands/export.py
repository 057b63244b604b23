"""`mirsweep export`: a checkpoint as a model that transformers can load."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, print_json


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(help="Checkpoint or job folder; with --best the name of a study."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the model.")],
    best: Annotated[
        bool, typer.Option("--best", help="Take the best trial of the study CHECKPOINT.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint's model as a folder for transformers, and check it by loading it."""
    source = _best_of(checkpoint) if best else checkpoint

    from jobs.downstream.start import find_checkpoint

    # Exports are made on the CPU. transformers imports DeepSpeed, which warns of every machine
    # without a GPU unless told.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from jobs.export.run import export_checkpoint

    done = export_checkpoint(find_checkpoint(str(source)), folder)
    if as_json:
        print_json({**asdict(done), "folder": str(folder)})
        return
    what = "transformers' LlavaForConditionalGeneration" if done.form == "llava" else "our own form"
    typer.echo(f"model           {folder}")
    typer.echo(f"form            {what}{f': {done.why}' if done.why else ''}")
    if done.moca_layers:
        typer.echo(
            f"MoCa            in {len(done.moca_layers)} decoder layers, kept in an extra file: "
            f"see {folder / 'README.md'}"
        )
    typer.echo(f"checked         loaded again, logits differ by {done.difference:.1g} at most")


def _best_of(study: str) -> Path:
    """The newest checkpoint of a study's best trial."""
    from mir.errors import ConfigError
    from orchestrator.commands.studies import load_study
    from orchestrator.layout import checkpoint_of
    from orchestrator.views.standing import best_trial

    folder, view = load_study(study)
    trial = best_trial(view)
    found = None if trial is None else checkpoint_of(folder, trial)
    if found is None:
        raise ConfigError(
            f"{study}: no trial of it is complete and feasible with a checkpoint: see mirsweep "
            f"status {study}, and name a checkpoint"
        )
    return found
