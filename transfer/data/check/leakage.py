"""What makes a result look better than it is: the same picture or subject in two splits.

Knows hashes, groups, labels and splits; no pixel.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import combinations

from scipy.stats import binomtest

from transfer.data.check.duplicates import (
    SMALL,
    LookAlikes,
    Pair,
    Place,
    kept_split,
    look_alikes,
    same_pixels,
)
from transfer.data.check.findings import Finding, Images, Splits, image_at, named, pairs_of, stands
from transfer.data.facts import ImageFacts

# Where more than one in so many pairs look alike, all images do, and it tells nothing; fewer
# pairs are too few to know.
ONE_PAIR_IN = 10_000
MIN_PAIRS = 100_000
# How sure it must be that pairs across splits are more than chance.
MAX_P = 1e-3


def copies_across(splits: Splits) -> Iterator[Finding]:
    """The same pixels in two splits: what is tested, or chosen by, was trained on."""
    copies = same_pixels({name: split.digests for name, split in splits.items()})
    for first, second in combinations(splits, 2):
        both = [
            [p for p in same if p.split in (first, second)]
            for same in copies
            if {first, second} <= {p.split for p in same}
        ]
        if not both:
            continue
        num_bytes = sum(_meet(same, first, lambda p: _fact(splits, p).content) for same in both)
        num_other = sum(
            not _meet(same, first, lambda p: int(splits[p.split].labels_N[p.number]))
            for same in both
        )
        other = f"; {num_other} of them with different classes" if num_other else ""
        yield Finding(
            kind="copies_across_splits",
            level="error",
            text=(
                f"{stands(len(both))} in both {first} and {second} (the same pixels; "
                f"{num_bytes} byte for byte){other}"
            ),
            remedy=(
                f"--drop-duplicates keeps the copy in {_kept(copies, first, second)} alone, "
                "--allow-leakage keeps both"
            ),
            images=tuple(tuple(image_at(splits, p) for p in same) for same in both),
            values={
                "count": len(both),
                "splits": [first, second],
                "byte_identical": num_bytes,
                "other_class": num_other,
            },
            allowed_by=("--drop-duplicates", "--allow-leakage"),
        )


def _meet(same: Sequence[Place], first: str, of: Callable[[Place], Hashable]) -> bool:
    """Whether a copy in one split and one in the other agree in this."""
    ones = {of(place) for place in same if place.split == first}
    return bool(ones & {of(place) for place in same if place.split != first})


def _kept(copies: Sequence[Sequence[Place]], first: str, second: str) -> str:
    """The split or splits whose copy stays; a third one may have the picture as well."""
    splits = [{place.split for place in same} for same in copies]
    kept = {kept_split(found) for found in splits if {first, second} <= found}
    return " or ".join(name for name in ("train", "val", "test") if name in kept)


def groups_across(splits: Splits) -> Iterator[Finding]:
    """A subject in two of the given splits; those that are made keep subjects together."""
    for first, second in combinations(splits, 2):
        one, other = splits[first].groups, splits[second].groups
        if one is None or other is None:
            continue
        shared = sorted(set(one) & set(other))
        if not shared:
            continue
        members: dict[str, list[dict[str, str]]] = defaultdict(list)
        wanted = set(shared)
        for split in (first, second):
            part = splits[split]
            for group, name in zip(part.groups or (), part.names, strict=True):
                if group in wanted:
                    members[group].append({"split": split, "name": name})
        subjects = "1 subject has" if len(shared) == 1 else f"{len(shared):,} subjects have"
        yield Finding(
            kind="groups_across_splits",
            level="error",
            text=(
                f"{subjects} images in both {first} and {second} ({named(shared)}). Names may be "
                "reused across folders: then they are different people, and nothing leaks"
            ),
            remedy=(
                "if they are different people, give a list (CSV) with a column `group` that tells "
                "them apart; if they are the same, put each into one split, or go on with "
                "--allow-leakage, which is told in every result"
            ),
            images=tuple(tuple(members[group]) for group in shared),
            values={"count": len(shared), "splits": [first, second], "groups": shared},
            allowed_by=("--allow-leakage",),
        )


def copies_within(splits: Splits) -> Iterator[Finding]:
    """The same pixels twice in one split, of one class or of several."""
    for name, split in splits.items():
        copies = same_pixels({name: split.digests})
        labels = [{int(split.labels_N[p.number]) for p in same} for same in copies]
        agreeing = [same for same, found in zip(copies, labels, strict=True) if len(found) == 1]
        contrary = [same for same, found in zip(copies, labels, strict=True) if len(found) > 1]
        if agreeing:
            yield Finding(
                kind="copies_within_split",
                level="warning",
                text=f"{stands(len(agreeing))} more than once in {name}",
                remedy="remove the copies: each counts as if it were another subject",
                images=tuple(tuple(image_at(splits, p) for p in same) for same in agreeing),
                values={"count": len(agreeing), "split": name},
            )
        if contrary:
            yield Finding(
                kind="contradictory_labels",
                level="warning",
                text=f"{stands(len(contrary))} in {name} with different classes",
                remedy="look which class is right: no network can be right about all copies",
                images=tuple(tuple(image_at(splits, p) for p in same) for same in contrary),
                values={"count": len(contrary), "split": name},
            )


def near_duplicates(splits: Splits, *, knows_groups: bool) -> Iterator[Finding]:
    """Pictures that were saved anew, and others that look alike where that may mean something.

    Images of one kind look alike at 64 bits by chance. Pairs in two splits that are not the same
    picture at a finer look are told where there are more of them than pairs within splits let
    expect (binomial test), or where nobody knows who is on them and they are rare.
    """
    found = _look_alikes(splits)
    across = [pair for pair in found.pairs if pair.first.split != pair.second.split]
    if not _means_something(found, knows_groups=knows_groups):
        across = [pair for pair in across if pair.is_same]
    if across:
        num_same = sum(pair.is_same for pair in across)
        same = {0: "none of them is", 1: "1 of them is"}.get(num_same, f"{num_same} of them are")
        yield Finding(
            kind="near_duplicates_across_splits",
            level="warning",
            text=(
                f"{pairs_of(len(across))} of images in two splits look alike (perceptual hash "
                f"distance <= 4 of 64 bits); at a finer look (256 bits) {same} the same picture"
            ),
            remedy=(
                "look at them: a picture saved anew belongs into one split; pictures of one "
                "subject do, too (--group-pattern); different subjects may just look alike"
            ),
            images=_pairs(splits, across),
            values={
                "count": len(across),
                "same_picture": num_same,
                "distances": [[pair.coarse, pair.fine] for pair in across],
            },
        )
    within = [p for p in found.pairs if p.first.split == p.second.split and p.is_same]
    if within:
        yield Finding(
            kind="near_duplicates_within_split",
            level="warning",
            text=f"{pairs_of(len(within))} of images in one split are one picture, saved anew",
            remedy="remove the copies: each counts as if it were another subject",
            images=_pairs(splits, within),
            values={
                "count": len(within),
                "distances": [[pair.coarse, pair.fine] for pair in within],
            },
        )


def _look_alikes(splits: Splits) -> LookAlikes:
    """Those among images of different pixels: copies have a finding of their own."""
    seen: set[tuple[str, str]] = set()
    places = []
    for name, split in splits.items():
        for number, fact in enumerate(split.facts):
            # A flat image has no structure that could look like another's.
            if fact.coarse and (name, fact.pixels) not in seen:
                seen.add((name, fact.pixels))
                places.append(Place(name, number))
    facts = [_fact(splits, place) for place in places]
    found = look_alikes(
        places,
        [fact.coarse for fact in facts],
        [fact.fine for fact in facts],
        [min(fact.width, fact.height) < SMALL for fact in facts],
    )
    pairs = [p for p in found.pairs if _pixels(splits, p.first) != _pixels(splits, p.second)]
    num_copies = len(found.pairs) - len(pairs)
    return found._replace(pairs=pairs, num_across=found.num_across - num_copies)


def _pixels(splits: Splits, place: Place) -> str:
    return _fact(splits, place).pixels


def _means_something(found: LookAlikes, *, knows_groups: bool) -> bool:
    number = found.num_across + found.num_within
    possible = found.possible_across + found.possible_within
    if number == 0:
        return False
    share = found.possible_across / possible
    if binomtest(found.num_across, number, share, alternative="greater").pvalue < MAX_P:
        return True
    return not knows_groups and possible >= MIN_PAIRS and number <= possible / ONE_PAIR_IN


def _pairs(splits: Splits, pairs: Iterable[Pair]) -> Images:
    return tuple((image_at(splits, pair.first), image_at(splits, pair.second)) for pair in pairs)


def _fact(splits: Splits, place: Place) -> ImageFacts:
    return splits[place.split].facts[place.number]
