"""The ledger of final test evaluations: every opening of a test set, kept for ever.

A table of its own beside Optuna's, keyed by the fingerprint of the test split, so that it outlives
the study. An entry is written *before* the test set is opened, with what was predicted; what came
out is added behind. Another database knows nothing of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    inspect,
    select,
)

from studies.database.storage import StudyStorage

# Values of one query.
MOST_AT_A_TIME = 500

_TABLES = MetaData()
_OPENINGS = Table(
    "transfer_studies_test_openings",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("test_fingerprint", String(64), nullable=False, index=True),
    Column("opened", DateTime, nullable=False),  # UTC
    Column("study", String(512), nullable=False),
    Column("bundle", String(64), nullable=False),  # SHA-256 of its model
    Column("reason", Text),
    Column("predicted", JSON, nullable=False),
    Column("result", JSON),  # Null until the evaluation has ended.
)
# The same images under other class names, or some of them, have another fingerprint.
_IMAGES = Table(
    "transfer_studies_opened_images",
    _TABLES,
    Column("opening", Integer, primary_key=True),
    Column("digest", String(64), primary_key=True, index=True),
)
# Any number that nobody else locks by.
_LOCK = 7_246_190_333


@dataclass(frozen=True, kw_only=True)
class Opening:
    """One opening of a test set. ``number`` counts those of the same set from 1."""

    id: int
    number: int
    test_fingerprint: str
    opened: datetime
    study: str
    bundle: str
    reason: str | None
    predicted: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether its result was ever seen."""
        return self.result is not None

    def is_of(self, name: str, search_id: str | None) -> bool:
        """Whether it was of this study: by its id, by its name where it has none.

        A name may have been another study's, and an id stays when a study is renamed.
        """
        known = self.predicted.get("search")
        return bool(known == search_id) and (known is not None or self.study == name)

    def as_json(self) -> dict[str, Any]:
        """Without forecast and result."""
        return {
            "opening": self.number,
            "opened": self.opened.isoformat(timespec="seconds"),
            "study": self.study,
            "model": self.bundle,
            "reason": self.reason,
            "is_finished": self.is_finished,
        }


def openings(storage: StudyStorage, test_fingerprint: str) -> list[Opening]:
    """All openings of a test set, in their order. Creates nothing."""
    engine = storage.database.engine
    if not inspect(engine).has_table(_OPENINGS.name):
        return []
    query = (
        select(_OPENINGS)
        .where(_OPENINGS.c.test_fingerprint == test_fingerprint)
        .order_by(_OPENINGS.c.id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        Opening(
            number=number,
            **{**row, "opened": row["opened"].replace(tzinfo=UTC)},
        )
        for number, row in enumerate(rows, start=1)
    ]


def seal_sentence(every: Sequence[Opening]) -> str:
    """Whether a test set is still sealed, in words."""
    if not every:
        return "The test images are sealed."
    if len(every) == 1:
        return f"The test images were opened, on {every[0].opened:%Y-%m-%d %H:%M} UTC."
    return (
        f"The test images were opened {len(every)} times, last on "
        f"{every[-1].opened:%Y-%m-%d %H:%M} UTC."
    )


class OpenedMeanwhileError(ValueError):
    """Another process has opened the same test set just now."""


def open_entry(
    storage: StudyStorage,
    *,
    test_fingerprint: str,
    study: str,
    bundle: str,
    reason: str | None,
    predicted: Mapping[str, Any],
    digests: Collection[str] = (),
    before: int | None = None,
) -> int:
    """Record that a test set is about to be opened; returns the entry's id.

    Args:
        digests: of the pixels of its images, to know them again in another test set.
        before: how many openings of it the caller has seen; None doesn't ask.

    Raises:
        OpenedMeanwhileError: there are more by now.
    """
    engine = storage.database.engine
    _TABLES.create_all(engine, checkfirst=True)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # SQLite's file is on one host, which has locks.
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        if before is not None:
            counted = select(func.count()).where(_OPENINGS.c.test_fingerprint == test_fingerprint)
            if connection.execute(counted).scalar_one() != before:
                raise OpenedMeanwhileError(
                    "Another process has opened these test images just now; see `status`."
                )
        result = connection.execute(
            _OPENINGS.insert().values(
                test_fingerprint=test_fingerprint,
                opened=datetime.now(UTC).replace(tzinfo=None),
                study=study,
                bundle=bundle,
                reason=reason,
                predicted=dict(predicted),
            )
        )
        (key,) = result.inserted_primary_key or (None,)
        assert isinstance(key, int)
        rows = [{"opening": key, "digest": digest} for digest in sorted(set(digests))]
        if rows:
            connection.execute(_IMAGES.insert(), rows)
    return key


def images_opened(
    storage: StudyStorage, digests: Collection[str], *, except_of: str
) -> dict[str, int]:
    """How many of these images were opened before in other test sets, by study.

    Args:
        except_of: the fingerprint of the test set that is asked about.
    """
    engine = storage.database.engine
    if not inspect(engine).has_table(_IMAGES.name):
        return {}
    wanted = sorted(set(digests))
    found: dict[str, int] = {}
    joined = _IMAGES.join(_OPENINGS, _IMAGES.c.opening == _OPENINGS.c.id)
    with engine.connect() as connection:
        for first in range(0, len(wanted), MOST_AT_A_TIME):
            part = wanted[first : first + MOST_AT_A_TIME]
            query = (
                select(_OPENINGS.c.study, _IMAGES.c.digest)
                .select_from(joined)
                .where(_IMAGES.c.digest.in_(part), _OPENINGS.c.test_fingerprint != except_of)
                .distinct()
            )
            for study, _ in connection.execute(query):
                found[study] = found.get(study, 0) + 1
    return found


def close_entry(storage: StudyStorage, entry: int, result: Mapping[str, Any]) -> None:
    """Add what came out to an entry that has no result yet.

    Raises:
        ValueError: there is no such entry, or it has a result: none is ever written over.
    """
    statement = (
        _OPENINGS.update()
        .where(_OPENINGS.c.id == entry, _OPENINGS.c.result.is_(None))
        .values(result=dict(result))
    )
    with storage.database.engine.begin() as connection:
        if connection.execute(statement).rowcount != 1:
            raise ValueError(f"Opening {entry} of the ledger is not there or has a result.")
