"""A disk that fills up while a state is written: said, and the state before it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xt.core.errors import XtError
from xt.train.state import Work


def test_a_full_disk_is_said_and_the_state_before_stays_whole(small_disk: Path) -> None:
    work = Work(small_disk / "x.training")
    work.begin({})
    work.save(1, {"weight/a": torch.ones(3)}, {"trace": {}})
    with pytest.raises(XtError, match="No disk space left"):
        work.save(2, {"weight/a": torch.ones(1_000_000)}, {"trace": {}})
    with pytest.raises(XtError, match="No disk space left"):
        work.save_best({"weight/a": torch.ones(1_000_000)})
    loaded = work.load()
    assert loaded is not None
    assert (loaded[0]["weight/a"].tolist(), loaded[1]["step"]) == ([1.0, 1.0, 1.0], 1)
    assert not work.best.exists()
