"""corrupt: one corruption of the first test images of one dataset, at several severities."""

import numpy as np

from adamerge_core.vision.corruptions import corrupt
from adamerge_core.vision.images import open_images, save_array
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work


def run(work: Work) -> None:
    """Write uint8 [severities, N, H, W, 3]; an image's seed: the suite's and its index."""
    dataset, size, corruption = (work.options[key] for key in ("dataset", "size", "corruption"))
    settings = work.params["corrupt"]
    severities, seed = settings["severities"], settings["seed"]
    images = open_images(paths.images(dataset, size, "test"))[: settings["images"]]
    corrupted = np.empty((len(severities), *images.shape), dtype=np.uint8)
    for row, severity in enumerate(severities):
        for index, image in enumerate(images):
            image_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            corrupted[row, index] = corrupt(np.array(image), corruption, severity, image_seed)
        work.report.progress(row + 1, len(severities), f"severities of {corruption}")
    save_array(paths.corrupted(dataset, size, corruption), corrupted)


if __name__ == "__main__":
    run_stage(run)
