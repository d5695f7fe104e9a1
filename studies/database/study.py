"""``StudyRecord``: what is stored of a study beside its trials, written and read.

With `trials` the only module that knows the keys of stored attributes. Never imports torch.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

# Raise it when the meaning or the layout of an attribute of studies or trials changes.
# 2: predictions and features say whose images they are.
SCHEMA = 2

_IDENTITY = "identity"
_TOTALS = "totals"
_CONFIRM = "confirm"
_MARGIN = "margin"
_ASKED = "confirm_asked"
_DATA_CARD = "data_card"  # with the ids of its artifacts
_PLACES = "places"  # where data and weights last were
_SEARCH = "search"  # with a study beside a search: the id of that search
# What only this program reads.
STUDY_ATTRIBUTES = (
    _IDENTITY,
    _TOTALS,
    _CONFIRM,
    _MARGIN,
    _ASKED,
    _DATA_CARD,
    _PLACES,
    _SEARCH,
)
# Seconds that no trial has: written once a run.
_DECODING = "decoding_seconds"
_BETWEEN_TRIALS = "between_trials_seconds"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What identifies a study (fixed when it is created), what bounds it, and what it has cost.

    ``decoding_seconds`` are those of all its runs, spent before trials; in
    ``between_trials_seconds`` trials were handed out and their results stored. ``search_id`` is
    drawn when the study is created: no other study has it, of whatever name. None for a study that
    was created before there was one.
    """

    identity: dict[str, Any]
    trials: int
    timeout_seconds: float | None
    decoding_seconds: float = 0.0
    between_trials_seconds: float = 0.0
    search_id: str | None = None
    places: dict[str, Any] = field(default_factory=dict)

    @property
    def data_place(self) -> str:
        """Where its data last were, as ``--data`` takes it."""
        return str(self.places.get("data", self.identity["data"]["source"]))

    @property
    def weight_places(self) -> dict[str, str]:
        """Where the file of each backbone's weights last was."""
        return dict(self.places.get("weights", {}))

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.identity["settings"])

    @property
    def data_check(self) -> dict[str, Any]:
        """What was allowed, left out and warned of."""
        check: dict[str, Any] = self.identity["data"]["check"]
        return check

    def num_independent(self, split: str) -> int:
        """The fewest independent images that a split is worth: its subjects, if they are known."""
        subjects = self.num_subjects(split)
        counts = self.identity["data"]["counts"][split]
        return sum(counts.values()) if subjects is None else subjects

    def num_subjects(self, split: str) -> int | None:
        """Whose images a split has; None where nobody knows."""
        subjects: dict[str, int] | None = self.identity["data"].get("subjects")
        return None if subjects is None else subjects[split]

    @property
    def opening(self) -> list[dict[str, Any]]:
        """The configurations that are run beside the sampler's, by database key; probes first."""
        return list(self.identity["opening"])


def write_identity(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    """Store what must never change, with a new id. ``identity`` must be JSON."""
    study.set_user_attr(_IDENTITY, {"schema": SCHEMA, "id": uuid.uuid4().hex, **identity})


def write_places(study: optuna.Study, places: Mapping[str, Any]) -> None:
    """Store where ``data`` and, by backbone, ``weights`` are now, where that has changed."""
    if study.user_attrs.get(_PLACES) != places:
        study.set_user_attr(_PLACES, dict(places))


def write_search(study: optuna.Study, search_id: str | None) -> None:
    """Store with a study beside a search whose it is."""
    study.set_user_attr(_SEARCH, search_id)


def read_search(study: optuna.Study) -> str | None:
    """The id of the search that a study beside it belongs to, or None."""
    search_id: str | None = study.user_attrs.get(_SEARCH)
    return search_id


def is_foreign(study: optuna.Study) -> bool:
    """Whether an Optuna study is of another program: it has no identity, and is not empty.

    Of a study whose process was killed at once there may be a data card and nothing else.
    """
    attributes = study.user_attrs
    if _IDENTITY in attributes:
        return False
    return bool(set(attributes) - {_DATA_CARD} or study.get_trials(deepcopy=False))


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


def write_margin(study: optuna.Study, margin: float) -> None:
    """Store the difference between strategies that would matter, as it was asked for."""
    study.set_user_attr(_MARGIN, margin)


def read_margin(study: optuna.Study) -> float | None:
    """What `write_margin` stored last, or None."""
    margin: float | None = study.user_attrs.get(_MARGIN)
    return margin


def write_asked(study: optuna.Study, asked: Mapping[str, Any]) -> None:
    """Store how a study is to be confirmed, as far as it was asked for, before it is."""
    study.set_user_attr(_ASKED, {**read_asked(study), **asked})


def read_asked(study: optuna.Study) -> dict[str, Any]:
    """What `write_asked` stored: of ``top``, ``num_seeds``, ``choose`` and ``resplit`` some."""
    return dict(study.user_attrs.get(_ASKED, {}))


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


def read_study(study: optuna.Study, *, allow_older: bool = False) -> StudyRecord | None:
    """The study's record, or None where a study was created and its process killed at once.

    Args:
        allow_older: for looking at trials alone, of which an older version says the same.

    Raises:
        ValueError: the study was written by another version of this program, or by another one.
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
    if identity["schema"] < SCHEMA and not allow_older:
        raise ValueError(
            f"Study '{study.study_name}' was written by an older version of transfer-studies "
            f"(schema {identity['schema']}, this one has {SCHEMA}), which did not store whose "
            "image each is: run it anew under another --name, or go on with the version that "
            "made it; openings of its test images count all the same."
        )
    # Without the schema and the id it is equal to what was handed to `write_identity`.
    search_id = identity.get("id")
    identity = {key: value for key, value in identity.items() if key not in ("schema", "id")}
    return StudyRecord(
        identity=identity,
        search_id=search_id,
        places=attributes.get(_PLACES, {}),
        decoding_seconds=float(attributes.get(_DECODING, 0.0)),
        between_trials_seconds=float(attributes.get(_BETWEEN_TRIALS, 0.0)),
        **attributes[_TOTALS],
    )
