"""The room `servers`: forged requests, the secret, prefect.yaml, guests, a server that dies."""

import itertools
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.servers import deployments, ends, gate, guests, impostors, requests, secrets

PARTS = (secrets, deployments, impostors, gate, requests, guests, ends)
"""The quick ones first."""


def cases() -> Iterator[Case]:
    """Give the cases of all parts."""
    return itertools.chain.from_iterable(part.cases() for part in PARTS)
