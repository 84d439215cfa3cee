"""What the registry's pages say of a version, in Markdown."""

from tasks.report.escapes import in_markdown
from tasks.tracking.found_run import FoundRun
from tasks.tracking.pages.run_page import shorten
from tasks.tracking.registry.judgement import Judgement
from tasks.tracking.registry.offers import Offer


def about_model(suite: str, candidate: str, champion: str) -> str:
    """Describe the registered model of a suite."""
    return (
        f"The best merged models of the suite {suite}, by held-out accuracy. `{candidate}` is what "
        f"the last run made; `{champion}` is what to use, as `models:/{suite}-merged@{champion}`. "
        "Each version says why it is champion or is not."
    )


def describe(
    name: str, number: str, offer: Offer, judged: Judgement, table: str, run: FoundRun
) -> str:
    """Describe a version: what it is, what was judged and why, its measures, how to load it."""
    row = offer.row
    tasks = len(row.accuracies) - 1
    verb = "Became champion" if judged.moves else "Did not become champion"
    link = f"[{in_markdown(run.tags.get('mlflow.runName', run.run_id))}]({run.page})"
    parts = [
        # the registry's list shows the beginning as it is, without markup
        f"{in_markdown(row.method)}, seed {row.seed}: {row.average:.2f} % on average over {tasks} "
        f"tasks. Made by the run {link}.",
        f"**{verb}**: {in_markdown(judged.why)}.",
        table,
        "Top-1 accuracy in percent, differences in points, on test images that no adaptation saw "
        "(held-out protocol).",
        f"Weights: `{offer.path.as_posix()}`, md5 `{offer.md5}`, with DVC.",
    ]
    if offer.record:
        task = next(iter(offer.record.heads))
        parts.append(
            "```python\n"
            f'model = mlflow.pyfunc.load_model("models:/{name}/{number}")\n'
            'model.predict(pandas.DataFrame({"image": ["image.png"]}), '
            f'params={{"task": "{task}"}})\n'
            "```"
        )
    return shorten("\n\n".join(parts))


def with_note(description: str, line: str) -> str:
    """Add to a version's description what a person decided."""
    return shorten(f"{description}\n\n**By hand**: {in_markdown(line)}".strip())
