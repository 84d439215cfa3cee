"""The round of attacks and accidents: `python -m tests.attacks` tries all of them again."""
