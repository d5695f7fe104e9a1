"""When a trial is stopped early: a pure rule, fair between strategies.

Knows the metric's values by epoch; nothing of Optuna. The caller hands in the other trials of the
same strategy: a fine-tuning trial that starts slowly is never measured against a probe.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from studies.settings import MIN_PEERS, WARMUP_EPOCHS


def should_prune(
    values: Mapping[int, float],
    peers: Sequence[Mapping[int, float]],
    *,
    min_peers: int = MIN_PEERS,
    warmup_epochs: int = WARMUP_EPOCHS,
) -> bool:
    """Whether the best score so far lies below the median of the peers' at the same epoch.

    A peer that ended earlier, pruned or out of patience, counts with the best it had reached.
    Comparing with those alone that are still there would prune again and again until few are left:
    the median of survivors rises with every one that is taken out (Optuna's ``MedianPruner``
    compares with completed trials only).

    Args:
        values: the running trial's score by epoch, counted from 1; larger is better.
        peers: the same of the other trials of the strategy.
    """
    if not values:
        return False
    epoch = max(values)
    reached = [peer for peer in peers if peer and max(peer) > min(warmup_epochs, epoch - 1)]
    if epoch <= warmup_epochs or len(reached) < min_peers:
        return False
    theirs = median(max(v for e, v in peer.items() if e <= epoch) for peer in reached)
    return max(values.values()) < theirs
