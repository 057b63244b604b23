"""The same forty jobs by Ray Tune with OptunaSearch and ASHA: the peer of bench_controller."""

from __future__ import annotations

import time

REPORTS = 5


def tune_seconds(trials: int, at_once: int) -> float:
    """Seconds from the call of `fit` to its return; Ray is running already."""
    import os

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def no_op(config: dict[str, float]) -> None:
        for step in range(1, REPORTS + 1):
            tune.report({"mir": 4.0 - step * config["rate"], "training_iteration": step})

    tuner = tune.Tuner(
        tune.with_resources(no_op, {"cpu": 1}),
        param_space={"rate": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(
            metric="mir", mode="min", num_samples=trials, max_concurrent_trials=at_once,
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler(max_t=REPORTS, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(verbose=0),
    )  # fmt: skip
    begin = time.perf_counter()
    tuner.fit()
    return time.perf_counter() - begin
