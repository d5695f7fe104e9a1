"""What makes a result look better than it is: the same picture or subject in two splits.

Knows hashes, groups, labels and splits; no pixel.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from transfer.data.duplicates import Pair, Place, kept_split, look_alikes, same_pixels
from transfer.data.facts import ImageFacts
from transfer.data.findings import Finding, Images, Splits, image_at, named, pairs_of, stands

# Where more than one in so many pairs look alike, all images do, and it tells nothing; fewer
# pairs are too few to know.
ONE_PAIR_IN = 10_000
MIN_PAIRS = 100_000


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
        num_bytes = sum(len({_fact(splits, p).content for p in same}) < len(same) for same in both)
        labels = [{int(splits[p.split].labels_N[p.number]) for p in same} for same in both]
        num_other = sum(len(found) > 1 for found in labels)
        other = f"; {num_other} of them with different classes" if num_other else ""
        yield Finding(
            kind="copies_across_splits",
            level="error",
            text=(
                f"{stands(len(both))} in both {first} and {second} (the same pixels; "
                f"{num_bytes} byte for byte){other}"
            ),
            remedy=(
                f"--drop-duplicates keeps the copy in {kept_split((first, second))} alone, "
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
                "put each subject's images into one split; if the names are reused, go on with "
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
    """Pictures that were saved anew, and where nobody knows who is on them: those that look alike.

    Images of one kind look alike at 64 bits by chance. Those pairs are told only while they are
    rare, as then some may be of one subject.
    """
    places = [Place(name, i) for name, split in splits.items() for i in range(len(split))]
    facts = [_fact(splits, place) for place in places]
    pairs = list(look_alikes(places, [f.coarse for f in facts], [f.fine for f in facts]))
    # Those with the same pixels have a finding of their own.
    pairs = [p for p in pairs if _fact(splits, p.first).pixels != _fact(splits, p.second).pixels]
    pairs.sort(key=lambda pair: (pair.fine, pair.coarse))
    across = [pair for pair in pairs if pair.first.split != pair.second.split]
    num_pairs = len(places) * (len(places) - 1) // 2
    tells = num_pairs >= MIN_PAIRS and len(pairs) <= num_pairs / ONE_PAIR_IN
    alike = across if tells and not knows_groups else [pair for pair in across if pair.is_same]
    if alike:
        num_same = sum(pair.is_same for pair in alike)
        same = {0: "none of them is", 1: "1 of them is"}.get(num_same, f"{num_same} of them are")
        yield Finding(
            kind="near_duplicates_across_splits",
            level="warning",
            text=(
                f"{pairs_of(len(alike))} of images in two splits look alike (perceptual hash "
                f"distance <= 4 of 64 bits); at a finer look (256 bits) {same} the same picture"
            ),
            remedy=(
                "look at them: a picture saved anew belongs into one split; pictures of one "
                "subject do, too (--group-pattern); different subjects may just look alike"
            ),
            images=_pairs(splits, alike),
            values={
                "count": len(alike),
                "same_picture": num_same,
                "distances": [[pair.coarse, pair.fine] for pair in alike],
            },
        )
    within = [pair for pair in pairs if pair.first.split == pair.second.split and pair.is_same]
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


def _pairs(splits: Splits, pairs: Iterable[Pair]) -> Images:
    return tuple((image_at(splits, pair.first), image_at(splits, pair.second)) for pair in pairs)


def _fact(splits: Splits, place: Place) -> ImageFacts:
    return splits[place.split].facts[place.number]
