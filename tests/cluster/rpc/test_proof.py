from __future__ import annotations

import itertools

from aurora_router_cluster.rpc import proof
from aurora_router_cluster.rpc.proof import Identity


def test_a_proof_holds_for_its_secret_side_node_and_nonces_alone():
    theirs, ours = proof.nonce(), proof.nonce()
    right = ("secret", proof.CALLER, Identity("node", 3), theirs, ours)
    wrong = ("Secret", proof.SERVER, Identity("agent", 4), ours, theirs)
    claim = proof.prove(*right)
    for choice in itertools.product((0, 1), repeat=5):
        asked = [(right, wrong)[which][i] for i, which in enumerate(choice)]
        assert proof.holds(*asked, claim) == (not any(choice))


def test_nonces_are_not_used_twice():
    assert len({proof.nonce() for _ in range(100)}) == 100
