"""The round of attacks and accidents: `python -m tests.attacks` tries all of them again."""

import os

# before PyTorch is imported: with a thread a core in the first process, a forked one would wait
# for threads that it does not have
os.environ.setdefault("OMP_NUM_THREADS", "1")
