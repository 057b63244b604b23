"""A model sharded by ZeRO-3 over two ranks scores as the whole model on one."""

import pytest
import torch
import torch.multiprocessing
import zero3_worker

from mir.report import MirReport


@pytest.mark.slow
def test_two_zero3_ranks_score_as_one_whole_model(tmp_path):
    torch.multiprocessing.spawn(zero3_worker.run, (2, str(tmp_path)), nprocs=2)
    # One thread as on the ranks: after the tiny model's final norm all norms are equal but for
    # float32's rounding, which differs by threads and decides which of them are outliers.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = zero3_worker.score(*zero3_worker.tiny(), 0, 1)
    torch.set_num_threads(threads)
    for rank in range(2):
        reports, held = torch.load(tmp_path / f"rank-{rank}.pt")
        assert held < 0.1  # the parameters really are sharded: what is gathered is let go again
        for report in reports:
            found = MirReport.from_json(report)
            assert found.mir == pytest.approx(expected.mir, rel=1e-6)
            assert found.per_layer == pytest.approx(expected.per_layer, rel=1e-5)
            assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-5)
