"""The round of attacks and accidents: `python -m tests.attacks` tries all of them again."""

import os
import signal

# before PyTorch is imported: with a thread a core in the first process, a forked one would wait
# for threads that it does not have
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell starts its background jobs with Ctrl-C ignored, and the commands that cases start and end
# by it would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
