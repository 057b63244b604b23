"""MLflow's database in a study's folder, where its making came to no good end."""

from __future__ import annotations

import pytest
from small_world import make_sweep

from mir.errors import ClusterError
from orchestrator.trackers.mlflow_tracker import MlflowTracker, tracking_uri

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")

SPEC = make_sweep()


def test_a_database_whose_making_failed_is_made_by_a_retry_in_the_same_process(
    tmp_path, monkeypatch
):
    from mlflow.store.db import utils

    def full(engine):
        raise OSError("no space left")

    with monkeypatch.context() as disk, pytest.raises(ClusterError, match="no space left"):
        disk.setattr(utils, "_verify_schema", full)
        MlflowTracker().open_sweep(SPEC, tmp_path)
    tracker = MlflowTracker()
    tracker.open_sweep(SPEC, tmp_path)
    tracker.close()
    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


def test_a_database_that_an_earlier_version_left_half_made_is_to_be_moved_away(tmp_path):
    from mlflow.store.db.utils import InitialBase
    from sqlalchemy import create_engine, text

    engine = create_engine(tracking_uri(SPEC, tmp_path))
    InitialBase.metadata.create_all(engine)
    with engine.begin() as killed:  # within its first migration
        killed.execute(text("CREATE TABLE _alembic_tmp_metrics (key VARCHAR(250))"))
    engine.dispose()
    with pytest.raises(ClusterError, match="Move it away") as caught:
        MlflowTracker().open_sweep(SPEC, tmp_path)
    assert "tracking.uri out" not in str(caught.value)
