"""The process that brings a flow's journals into MLflow: what is left when it is killed."""

from pathlib import Path

import pytest

from tasks.running import journal
from tasks.tracking.follower import Follower


@pytest.mark.usefixtures("database")
def test_a_killed_follower_is_replaced_at_the_end_of_its_flow() -> None:
    follower = Follower()
    log = journal.start_pipeline("toy-pipeline", "toy", "adamerge run")
    follower.follow("toy-pipeline")
    follower._process.kill()
    follower._process.wait()
    log.end("FINISHED", counts={})
    follower.wait()
    assert follower._process.returncode == 0
    assert not list(Path(journal.FOLDER).glob("*.jsonl"))
