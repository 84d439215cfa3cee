"""Statistics of a fine-tuned model on images of its task, for the merge rules that weigh by data.

Each is computed once per task from unlabeled images and is a plain state dict, so that
adamerge_core.checkpoints saves and loads it. The model is put into evaluation mode. In a
torch.distributed group every rank calls with the same arguments and gets all of the result, equal
to one process's within rounding; each reads and computes its share of the batches.
"""

from adamerge_core.statistics.checks import check_statistics
from adamerge_core.statistics.fisher import fisher_diagonal
from adamerge_core.statistics.gram import gram_matrices
from adamerge_core.statistics.kinds import collect

__all__ = ["check_statistics", "collect", "fisher_diagonal", "gram_matrices"]
