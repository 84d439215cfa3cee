"""`adamerge evaluate`: accuracy of a checkpoint on folders of images."""

import argparse

from adamerge_core.vision.folder_accuracy import (
    EvaluationRecipe,
    input_accuracies,
    open_evaluation,
)
from adamerge_core.vision.plans import plan_evaluation, tensor_bytes
from flows.merge import print_accuracies, say_plan
from flows.model_options import Progress, by_task, device, refuse
from flows.sizes import gb


def evaluate(options: argparse.Namespace) -> int:
    """Measure as the options say, or say what is read."""
    faults: list[str] = []
    recipe = EvaluationRecipe(
        checkpoint=options.checkpoint,
        images=by_task("images", options.images, faults),
        architecture=options.model,
        pretrained=options.pretrained,
        classes=by_task("classes", options.classes, faults),
        templates=by_task("templates", options.templates, faults),
        heads=by_task("heads", options.heads, faults),
    )
    chosen = device(options.device, options.threads, faults)
    refuse("evaluate", faults + recipe.faults())
    inputs = open_evaluation(recipe)
    size = gb(tensor_bytes(inputs.tower.tensors))
    print(f"{inputs.tower.source}: {inputs.architecture}, {inputs.tower.format}, {size}")
    for name, images in inputs.images.items():
        head = inputs.heads[name]
        about = f"{len(images.files)} images of {images.folder}"
        print(
            f"{name}: {about}; head {head.kind}, {head.source}, {len(head.classes.names)} classes"
        )
        for remark in images.remarks:
            print(f"  {remark}")
    if options.dry_run:
        print("writes      nothing")
        say_plan(plan_evaluation(inputs, chosen), chosen)
        return 0
    print_accuracies({"checkpoint": input_accuracies(inputs, chosen, Progress())})
    return 0
