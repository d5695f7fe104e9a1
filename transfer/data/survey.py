"""Decode images, several at a time, and note what is to be known of each.

Of a sealed split this is all that anybody gets: facts, without brightness, and no pixel. They are
kept by the bytes of the images, so that nothing is decoded for them twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transfer.cache import is_full, mark_used, written_whole
from transfer.data.decoding import Decoded, UnreadableImageError
from transfer.data.facts import FORMAT, Facts, ImageFacts, Unreadable, facts_of
from transfer.data.sources.items import Items, OnProgress

CHUNK = 64
NOT_OPENED = "not opened: "  # stands for the digest of bytes that nobody could read


def survey(items: Items, cache_dir: Path, on_progress: OnProgress) -> tuple[Facts, ...]:
    """The facts of sealed images, kept in the cache folder."""
    contents = content_digests(items)
    path = cache_dir / "facts" / f"{items_key(contents, 'facts')}.json"
    facts = _read(path, len(items))
    if facts is not None:
        mark_used(path)
        return facts
    found = tuple(fact for _, fact in decoded(items, contents, on_progress, "checking", True))
    try:
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    except OSError as error:
        refuse_unless_out_of_room(error)
    return found


def content_digests(items: Items) -> tuple[str, ...]:
    """SHA-256 of the bytes of each image; of one that can't be opened its error."""

    def digest(i: int) -> str:
        try:
            return hashlib.sha256(items.read(i)).hexdigest()
        except OSError as error:
            return f"{NOT_OPENED}{error.strerror or error}"

    return tuple(map(digest, range(len(items))))


def items_key(contents: Sequence[str], what: str) -> str:
    """A name for what is made of these images in this order."""
    lines = [f"facts={FORMAT} {what}", *contents]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def decoded(
    items: Items,
    contents: Sequence[str],
    on_progress: OnProgress,
    what: str,
    sealed: bool = False,
) -> Iterator[tuple[Decoded | None, Facts]]:
    """Pixels and facts of each image in order, several decoded at a time.

    What can't be read has no pixels.
    """

    def decode(i: int) -> tuple[Decoded | None, Facts]:
        try:
            image = items.decode(items.read(i))
        except UnreadableImageError as error:
            return None, Unreadable(str(error))
        except OSError as error:
            if contents[i].startswith(NOT_OPENED):
                return None, Unreadable(error.strerror or str(error))
            # It was read a moment ago: what is kept under its bytes must follow from them.
            raise ValueError(
                f"{items.names[i]} could be read and then not ({error.strerror or error}); "
                "see to the disk or the network it comes from, and try again."
            ) from None
        return image, facts_of(image, contents[i], sealed=sealed)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), CHUNK):
            yield from pool.map(decode, range(start, min(start + CHUNK, len(items))))
            on_progress(what, min(start + CHUNK, len(items)), len(items))


def as_facts(rows: Sequence[Sequence[Any]], num_images: int) -> tuple[Facts, ...]:
    """Facts as they were before they were written as JSON.

    Raises:
        ValueError, TypeError: they are others, or of another number of images.
    """
    if len(rows) != num_images:
        raise ValueError(f"{len(rows)} facts of {num_images} images")
    return tuple(Unreadable(*row) if len(row) == 1 else ImageFacts(*row) for row in rows)


def _read(path: Path, num_images: int) -> tuple[Facts, ...] | None:
    """Kept facts, or None where they are missing or damaged."""
    try:
        return as_facts(json.loads(path.read_text(encoding="utf-8")), num_images)
    except (OSError, ValueError, TypeError):
        return None


def refuse_unless_out_of_room(error: OSError) -> None:
    """Pass over what a full disk does, and a cache folder that is deleted meanwhile."""
    if not (is_full(error) or isinstance(error, FileNotFoundError)):
        raise error
