"""`python -m flows.guard flows.scheduled_run DEPLOYMENT FLOW_RUN_ID`: carries out one flow run.

What runs is the flow that prefect.yaml names for the deployment, in the current folder, with this
process's environment: of the server's database only the flow run's id, state and parameters are
used, and the flow checks these.
"""

import sys
from uuid import UUID

from tasks.running.environment import configure


def main(name: str, flow_run_id: UUID) -> None:
    """Run it to its end; the state that it ends in is told to the server by Prefect."""
    configure()
    from prefect.flow_engine import load_flow_run, run_flow

    from flows import deployments
    from flows.run_parameters import RunParameters

    flow, run = deployments.read()[name].flow(), load_flow_run(flow_run_id)
    # those that the flow has; it says of their values what is wrong
    known = {key: v for key, v in run.parameters.items() if key in RunParameters.model_fields}
    run_flow(flow, flow_run=run, parameters=known, return_type="state")


if __name__ == "__main__":
    main(sys.argv[1], UUID(sys.argv[2]))
