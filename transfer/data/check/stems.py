"""Names of files that share a stem: whose pictures they may be, though nobody has said so.

`person12_bacteria_47.jpeg` and `person12_bacteria_48.jpeg` are probably of one person. Knows names
alone. A stem is the first words of a name, of which one has a number or an identifier; it means
something where there are many stems and a fair part of the images share theirs.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from transfer.data.check.findings import Finding, Splits, named

# So many stems, or of tiles and frames, so many; else they may be classes, folds or scanners.
MIN_STEMS, MIN_SLIDES = 10, 3
# Of the images whose names are built alike, so many share their stem with another.
MIN_SHARE = 0.2
# No stem has more of them: it would be a device or a day, not a subject.
MOST_SHARE, MOST_SHARE_SLIDES = 0.2, 0.7
# Joined to the pattern where another kind of name has been found to tell subjects.
MIN_SHARED = 2

WORD = re.compile(r"[^-_. ]+|[-_. ]+")
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ID_WORD = r"[0-9A-Za-z]+"
# What is counted within a slide or a film, whatever the slides are called.
COUNTED = re.compile(r"(?:tile|patch|frame|slice|crop|roi)s?\d*", re.IGNORECASE)
# `scan12L`: one image of each eye or side.
SIDED = re.compile(r"([A-Za-z]*\d+)(?:[A-Da-d]|[LRlr]|left|right|O[DS]|o[ds])$")
SIDED_PATTERN = r"^([A-Za-z]*\d+)[A-Za-z]+\."
DAY = re.compile(r"(?:19|20)\d\d(?:[01]\d[0-3]\d)?")


@dataclass(frozen=True, kw_only=True)
class Stems:
    """A group pattern that fits names, and the stem of each name, None where it has none."""

    pattern: str
    stem_N: tuple[str | None, ...]

    @property
    def num_shared(self) -> int:
        """The stems of several images."""
        return sum(count > 1 for count in Counter(filter(None, self.stem_N)).values())


def find_stems(names: Sequence[str], num_classes: int = 2) -> Stems | None:
    """The stems that names of files share; None where they mean nothing, or each has one image.

    Args:
        names: paths; the folders say nothing.
        num_classes: stems that are no more than the classes are taken to name them.
    """
    files = [PurePosixPath(name.replace("\\", "/")).name for name in names]
    words = [_words(PurePosixPath(file).stem) for file in files]
    parts = _prefixes(words, num_classes)
    if parts:
        pattern = f"^({'|'.join(parts)})[-_. ]"
    elif _is_sided(files, num_classes):
        pattern = SIDED_PATTERN
    else:
        return None
    matches = [re.search(pattern, file) for file in files]
    return Stems(pattern=pattern, stem_N=tuple(m[1] if m else None for m in matches))


def shared_stems(splits: Splits, num_classes: int) -> Iterator[Finding]:
    """Names that share a stem while nobody has said whose pictures they are."""
    places = [(split, name) for split, part in splits.items() for name in part.names]
    found = find_stems([name for _, name in places], num_classes)
    if found is None or found.num_shared == 0:
        return
    members: dict[str, list[dict[str, str]]] = defaultdict(list)
    for stem, (split, name) in zip(found.stem_N, places, strict=True):
        if stem is not None:
            members[stem].append({"split": split, "name": name})
    shared = {stem: images for stem, images in members.items() if len(images) > 1}
    across = [stem for stem, images in shared.items() if len({i["split"] for i in images}) > 1]
    num_images = sum(map(len, shared.values()))
    subjects = len(members) + sum(stem is None for stem in found.stem_N)
    option = f"--group-pattern {shlex.quote(found.pattern)}"
    text = (
        f"{num_images:,} images share the beginning of their name with another "
        f"({named(shared)}), but no groups are given: images of one subject would count as "
        f"independent, and be parted by splits that are made. {option} finds {subjects:,} subjects"
    )
    remedy = f"if they are subjects, give {option}; if not, go on"
    if across:
        both = "1 of them has" if len(across) == 1 else f"{len(across):,} of them have"
        text += f". {both} images in two of the given splits ({named(across)})"
        remedy += (
            ". Names in two splits: if they are different people, give a list (CSV) with a column "
            "`group` that tells them apart; if they are the same, put each into one split, or add "
            "--allow-leakage"
        )
    yield Finding(
        kind="shared_stems",
        level="warning",
        text=text,
        remedy=remedy,
        images=tuple(tuple(images) for images in shared.values()),
        values={
            "count": num_images,
            "group_pattern": found.pattern,
            "subjects": subjects,
            "subjects_across_splits": len(across),
        },
    )


def _words(stem: str) -> list[str]:
    """Words and what is between them, in turn; an identifier with dashes is one word."""
    whole = UUID.match(stem)
    if whole is not None:
        return [whole[0], *WORD.findall(stem[whole.end() :])]
    return WORD.findall(stem)


def _prefixes(words: Sequence[Sequence[str]], num_classes: int) -> list[str]:
    """Patterns of beginnings that tell subjects, those of few images with another's last."""
    left = set(range(len(words)))
    found: list[str] = []
    others: list[str] = []
    in_others: set[int] = set()
    for is_literal in (True, False):
        for length in range(1, max(map(len, words), default=0), 2):
            by_shape: dict[tuple[str, ...], list[int]] = defaultdict(list)
            for i in sorted(left):
                if len(words[i]) > length:
                    by_shape[_shape(words[i][:length], is_literal=is_literal)].append(i)
            for _, chosen in sorted(by_shape.items()):
                prefixes = ["".join(words[i][:length]) for i in chosen]
                counted = all(COUNTED.fullmatch(words[i][length + 1]) for i in chosen)
                share = _shared_share(prefixes, num_classes, is_slide=counted)
                if share is None:
                    continue
                pattern = _pattern([words[i][:length] for i in chosen])
                if share >= MIN_SHARE:
                    found.append(pattern)
                    left -= set(chosen)
                elif share > 0 and is_literal and not in_others.issuperset(chosen):
                    others.append(pattern)
                    in_others.update(chosen)
    return list(dict.fromkeys([*found, *others])) if found else []


def _shared_share(prefixes: Sequence[str], num_classes: int, *, is_slide: bool) -> float | None:
    """Of these images the share that has a stem with others; None where they are no stems."""
    counts = Counter(prefixes)
    fewest, most = (MIN_SLIDES, MOST_SHARE_SLIDES) if is_slide else (MIN_STEMS, MOST_SHARE)
    if (
        len(counts) < fewest
        or len(counts) <= num_classes
        or max(counts.values()) > max(2, most * len(prefixes))
    ):
        return None
    if not is_slide and not all(any(c.isdigit() for c in prefix) for prefix in counts):
        return None  # Words alone name kinds of things.
    if all(DAY.fullmatch(re.split(r"[-_. ]+", prefix)[-1]) for prefix in counts):
        return None
    shared = [count for count in counts.values() if count > 1]
    return sum(shared) / len(prefixes) if len(shared) >= MIN_SHARED else 0.0


def _shape(words: Sequence[str], *, is_literal: bool) -> tuple[str, ...]:
    """How words are built: letters stay where ``is_literal``, else each word has its kind."""
    return tuple(_kind(word, is_literal=is_literal) for word in words)


def _kind(word: str, *, is_literal: bool) -> str:
    if WORD.fullmatch(word) and word[0] in "-_. ":
        return word
    if UUID.fullmatch(word):
        return "#"
    if is_literal and re.fullmatch(r"[A-Za-z]*\d*", word):
        return re.sub(r"\d+", "9", word)
    return "9" if word.isdigit() else "x"


def _pattern(prefixes: Iterable[Sequence[str]]) -> str:
    """A regular expression for beginnings of the same shape."""
    return "".join(_one(set(column)) for column in zip(*prefixes, strict=True))


def _one(words: set[str]) -> str:
    if len(words) == 1:
        return _escaped(next(iter(words)))
    if all(map(UUID.fullmatch, words)):
        return r"[0-9A-Fa-f-]{36}"
    heads = {re.sub(r"\d+$", "", word) for word in words}
    if len(heads) == 1 and all(re.search(r"\d$", word) for word in words):
        return _escaped(next(iter(heads))) + r"\d+"
    return ID_WORD if all(re.fullmatch(ID_WORD, word) for word in words) else r"[^-_. ]+"


def _escaped(text: str) -> str:
    return re.escape(text).replace(r"\-", "-")


def _is_sided(files: Sequence[str], num_classes: int) -> bool:
    """Whether names end in a side, as `scan12L` and `scan12R`."""
    found = [match[1] for file in files if (match := SIDED.match(PurePosixPath(file).stem))]
    if len(found) < MIN_SHARE * len(files):
        return False
    share = _shared_share(found, num_classes, is_slide=False)
    return share is not None and share >= MIN_SHARE
