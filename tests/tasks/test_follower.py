"""The process that brings a flow's journals into MLflow: what is left when it is killed."""

from pathlib import Path

import pytest

from tasks.running import journal
from tasks.tracking.follower import Follower
from tasks.tracking.store import Store


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
    run = Store().pipeline("toy-pipeline")
    assert run is not None
    assert follower.page == run.page


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_follower_that_outlives_its_flow_says_nothing() -> None:
    """What it would tell, where the run's page is, nobody reads any more."""
    follower = Follower()
    log = journal.start_pipeline("toy-pipeline", "toy", "adamerge run")
    assert follower._process.stdout
    follower._process.stdout.close()
    follower.follow("toy-pipeline")
    log.end("FINISHED", counts={})
    assert follower._process.stdin
    follower._process.stdin.close()
    assert follower._process.wait(60) == 0
