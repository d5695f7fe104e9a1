"""``StudyRecord``: what is stored of a study beside its trials, written and read.

With `records` the only module that knows the keys of stored attributes. Never imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

# Raise it when the meaning or the layout of an attribute of studies or trials changes.
SCHEMA = 1

_IDENTITY = "identity"
_TOTALS = "totals"
_CONFIRM = "confirm"
_LATER_CHECK = "later_data_check"
_DATA_CARD = "data_card"  # with the ids of its artifacts
# What only this program reads.
STUDY_ATTRIBUTES = (_IDENTITY, _TOTALS, _CONFIRM, _LATER_CHECK, _DATA_CARD)
# Seconds that no trial has: written once a run.
_DECODING = "decoding_seconds"
_BETWEEN_TRIALS = "between_trials_seconds"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What identifies a study (fixed when it is created), what bounds it, and what it has cost.

    ``decoding_seconds`` are those of all its runs, spent before trials; in
    ``between_trials_seconds`` trials were handed out and their results stored. ``later_check`` is
    the first data check of a study that was created before there was one.
    """

    identity: dict[str, Any]
    trials: int
    timeout_seconds: float | None
    decoding_seconds: float = 0.0
    between_trials_seconds: float = 0.0
    later_check: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.identity["settings"])

    @property
    def data_check(self) -> dict[str, Any] | None:
        """What was allowed, left out and warned of; None for a study older than the check."""
        check: dict[str, Any] | None = self.identity.get("data", {}).get("check")
        return check or self.later_check

    @property
    def opening(self) -> list[dict[str, Any]]:
        """The configurations that are run first, by database key."""
        return list(self.identity["opening"])


def write_identity(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    """Store what must never change. ``identity`` must be JSON."""
    study.set_user_attr(_IDENTITY, {"schema": SCHEMA, **identity})


def write_data_card(
    study: optuna.Study, card: Mapping[str, Any], artifacts: Mapping[str, str]
) -> None:
    """Store what the data are and what was found in them; ``artifacts`` are ids by file name."""
    study.set_user_attr(_DATA_CARD, {"schema": SCHEMA, "artifacts": dict(artifacts), **card})


def read_data_card(study: optuna.Study) -> dict[str, Any] | None:
    """The data card; None for a study that was created before there was one."""
    card: dict[str, Any] | None = study.user_attrs.get(_DATA_CARD)
    return card


def write_confirm(study: optuna.Study, confirm: Mapping[str, Any]) -> None:
    """Store with ``NAME/confirm`` what is confirmed and how: before the first training."""
    study.set_user_attr(_CONFIRM, {"schema": SCHEMA, **confirm})


def read_confirm(study: optuna.Study) -> dict[str, Any] | None:
    """What `write_confirm` stored last, or None."""
    confirm: dict[str, Any] | None = study.user_attrs.get(_CONFIRM)
    return confirm


def write_later_check(study: optuna.Study, check: Mapping[str, Any]) -> None:
    """Store the first data check of a study that was created before there was one."""
    study.set_user_attr(_LATER_CHECK, dict(check))


def write_totals(study: optuna.Study, trials: int, timeout_seconds: float | None) -> None:
    study.set_user_attr(_TOTALS, {"trials": trials, "timeout_seconds": timeout_seconds})


def add_decoding_seconds(study: optuna.Study, seconds: float) -> None:
    """Count what a run spent on decoding and checking images."""
    _add_seconds(study, _DECODING, seconds)


def add_seconds_between_trials(study: optuna.Study, seconds: float) -> None:
    """Count what a run spent on handing out trials and storing what came of them."""
    _add_seconds(study, _BETWEEN_TRIALS, seconds)


def _add_seconds(study: optuna.Study, key: str, seconds: float) -> None:
    study.set_user_attr(key, study.user_attrs.get(key, 0.0) + seconds)


def read_study(study: optuna.Study) -> StudyRecord | None:
    """The study's record, or None where a study was created and its process killed at once.

    Raises:
        ValueError: the study was written by a newer version of this program, or by another one.
    """
    attributes = study.user_attrs
    if _IDENTITY not in attributes or _TOTALS not in attributes:
        return None
    identity = attributes[_IDENTITY]
    if identity["schema"] > SCHEMA:
        raise ValueError(
            f"Study '{study.study_name}' was written by a newer version of transfer-studies "
            f"(schema {identity['schema']}, this one knows {SCHEMA}); update it."
        )
    # Without the schema it is equal to what was handed to `write_identity`.
    identity = {key: value for key, value in identity.items() if key != "schema"}
    return StudyRecord(
        identity=identity,
        decoding_seconds=float(attributes.get(_DECODING, 0.0)),
        between_trials_seconds=float(attributes.get(_BETWEEN_TRIALS, 0.0)),
        later_check=attributes.get(_LATER_CHECK),
        **attributes[_TOTALS],
    )
