"""What may not differ when a study goes on: it is refused, naming what differs.

Knows options and what is stored; loads nothing.
"""

from collections.abc import Mapping
from typing import Any

from studies.data_check import ALLOWANCES, flag
from studies.database.study import StudyRecord
from studies.errors import UserError
from studies.settings import DEFAULTS, FIXED, StudyOptions
from transfer.messages import printable


def refuse_other_settings(options: StudyOptions, stored: StudyRecord, name: str) -> None:
    """Refuse settings that are asked for and are not those that the study was created with.

    Raises:
        UserError: some differ.
    """
    asked, before = _asked(options), stored.settings
    different = [
        f"{key} (stored {before.get(key, DEFAULTS[key])}, asked for {value})"
        for key, value in asked.items()
        if value != before.get(key, DEFAULTS[key])
    ]
    if different:
        raise UserError(_refusal(name, different))


def _asked(options: StudyOptions) -> dict[str, Any]:
    asked = {key: getattr(options, key) for key in FIXED}
    return {key: value for key, value in asked.items() if value is not None}


def refuse_other_data(identity: Mapping[str, Any], stored: StudyRecord, name: str) -> None:
    """Refuse other data, space, weights or code than the study was created with.

    Raises:
        UserError: some differ.
    """
    old, different = stored.identity, []
    if identity["data"]["fingerprint"] != old["data"]["fingerprint"]:
        different.append(f"data (other training images, labels or groups{_files(identity, old)})")
    if identity["data"]["test_fingerprint"] != old["data"]["test_fingerprint"]:
        different.append(f"data (other test images or labels{_files(identity, old)})")
    if identity["data"]["classes"] != old["data"]["classes"]:
        different.append("data (other classes, or in another order)")
    different += [
        f"space ({part})" for part in _space_differences(identity["space"], old["space"])
    ]
    for backbone, sha256 in identity["weights"].items():
        if old["weights"].get(backbone, sha256) != sha256:
            last = stored.weight_places.get(backbone)
            where = "" if last is None else f", theirs was last at {last}; see --weights-dir"
            different.append(f"weights of {backbone} (another file{where})")
    before = old.get("backbones", {})
    for backbone, computed_by in identity["backbones"].items():
        changed = [
            f"{key} {before[backbone][key]}, now {value}"
            for key, value in computed_by.items()
            if backbone in before and before[backbone][key] != value
        ]
        if changed:
            different.append(f"code of {backbone} ({', '.join(changed)})")
    if different:
        raise UserError(_refusal(name, different))


def asked_allowances(options: StudyOptions) -> dict[str, bool]:
    """Which errors of the data check were allowed by flags."""
    return {name: bool(getattr(options, name)) for name in ALLOWANCES}


def allowances(options: StudyOptions, stored: StudyRecord | None, name: str) -> dict[str, bool]:
    """What was allowed when the study was created, or is now.

    Raises:
        UserError: something else was allowed then.
    """
    asked = asked_allowances(options)
    if stored is None:
        return asked
    before: dict[str, bool] = stored.data_check["flags"]
    new = [flag(key) for key in ALLOWANCES if asked[key] and not before[key]]
    if new:
        raise UserError(_refusal(name, [f"without {', '.join(new)}"]))
    return before


def _files(identity: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Files that could be read when the study was created and can't be now, or the reverse."""

    def unreadable(data: Mapping[str, Any]) -> set[str]:
        found: Mapping[str, list[str]] = (data.get("check") or {}).get("unreadable", {})
        return {name for names in found.values() for name in names}

    now, before = unreadable(identity["data"]), unreadable(old["data"])
    told = [
        f"; {len(names)} {what}: {printable(min(names))}"
        for names, what in (
            (now - before, "can't be read any more"),
            (before - now, "could not be read then"),
        )
        if names
    ]
    return "".join(told)


def _space_differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    def by_key(space: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{p['name']} {p['strategy'] or ''}".strip(): p for p in space["parameters"]}

    ours, theirs = by_key(new), by_key(old)
    return [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]


def _refusal(name: str, different: list[str]) -> str:
    return (
        f"Study '{name}' was created with other settings: {'; '.join(different)}. "
        "Leave them out to go on with it, or choose another --name."
    )
