"""What a study has found: read, compared, judged.

Who shows it takes what is stored from here, and never from the database.
"""

from studies.database.ledger import Opening, seal_sentence
from studies.database.study import StudyRecord
from studies.database.trials import CANDIDATE, SEED, TrialRecord, best_trials, count_states

__all__ = [
    "CANDIDATE",
    "SEED",
    "Opening",
    "StudyRecord",
    "TrialRecord",
    "best_trials",
    "count_states",
    "seal_sentence",
]
