"""`adamerge finetune`: a checkpoint and its head, of a folder of images."""

import argparse
from pathlib import Path

from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.finetune_models import finetune_inputs, out_faults
from adamerge_core.vision.finetune_recipes import FinetuneRecipe, open_finetune_inputs
from adamerge_core.vision.plans import plan_finetuning
from flows.merge import say_plan
from flows.model_options import Progress, device, refuse, settings
from flows.sizes import gb


def finetune(options: argparse.Namespace) -> int:
    """Fine-tune as the options say, or say what that takes."""
    faults: list[str] = []
    recipe = FinetuneRecipe(
        architecture=options.model,
        pretrained=options.pretrained,
        images=options.images,
        classes=options.classes,
        templates=options.templates,
        head=options.head,
        held_out=options.held_out,
        settings=settings(options.set, faults),
        seed=options.seed,
    )
    chosen, out = device(options.device, options.threads, faults), Path(options.out)
    refuse("finetune", faults + recipe.faults() + out_faults(out))
    inputs = open_finetune_inputs(recipe)
    training, (train, held_out) = recipe.training(), inputs.rows()
    names = inputs.classes.names
    print(f"pretrained  {inputs.pretrained.source}: {inputs.pretrained.format}")
    for remark in (*inputs.pretrained.remarks, *inputs.images.remarks):
        print(f"            {remark}")
    print(f"images      {len(train)} of {recipe.images}, {len(held_out)} more held out")
    print(f"head        {inputs.head}, {len(names)} classes: {', '.join(names[:5])}", end="")
    print(", …" if len(names) > 5 else "")
    print(
        f"training    {training.steps} steps of {training.batch_size} images, learning rate "
        f"{training.learning_rate:g}",
        flush=True,
    )
    if options.dry_run:
        plan = plan_finetuning(inputs, chosen)
        head = "with its head in it" if is_classifier(recipe.architecture) else "its head beside it"
        print(f"writes      {out}, {gb(plan.written)}, {head}")
        print(f"            {out}.partial/ until then, {gb(plan.working)}")
        say_plan(plan, chosen)
        print("nothing was written: --dry-run")
        return 0
    found = finetune_inputs(inputs, out, chosen, Progress())
    print(
        f"top-1 on {found.held_out} images held out: {found.pretrained:.1f} % before, "
        f"{found.finetuned:.1f} % after"
    )
    print(f"written: {', '.join(map(str, dict.fromkeys((found.checkpoint, found.head))))}")
    return 0
