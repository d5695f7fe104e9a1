"""`data`: the card of a source, what the data check found, what a study of it would be."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from studies.data_card import SPLITS
from studies.data_check import Checked, finding_lines
from transfer.data.check.findings import Finding
from transfer.data.decoding import RESIZED


def print_outlook(console: Console, shown: Mapping[str, Any]) -> None:
    """Print what ``outlook`` returned, in sentences."""
    lines = [
        f"{shown['command']} will make study '{shown['study']}':",
        *(f"no, it will be refused: {error}" for error in shown["refused"]),
        *shown["splits"],
        f"{shown['trials']} trials of at most {shown['epochs']} epochs at {shown['image_size']} x "
        f"{shown['image_size']} px, space '{shown['space']}' ({', '.join(shown['strategies'])})",
        f"images are {RESIZED[shown['resize']]}",
        f"backbones: {_backbones(shown['backbones'])}",
    ]
    if shown["without_weights"]:
        lines.append(f"tried for a download, else left out: {', '.join(shown['without_weights'])}")
    lines.append("the test images stay sealed")
    console.print("")
    head, *others = lines
    console.print(head, markup=False, soft_wrap=True)  # A command: to be copied whole.
    for line in others:
        console.print(Padding(Text(f"- {line}"), (0, 0, 0, 2)))


def _backbones(weights: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({hint})" for name, hint in weights.items()) or "none at hand"


MOST_SIZES = 3  # shown on the card; the rest is counted


def print_card(console: Console, card: Mapping[str, Any]) -> None:
    """Print what ``describe`` returned: a table of counts, then a line for each fact."""
    console.print(_counts(card))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(card):
        facts.add_row(Text(name), Text(value))
    console.print(facts)


def _counts(card: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=Text("Images"), title_justify="left")
    table.add_column("class", overflow="fold")
    for split in SPLITS:
        made = " (made)" if split in card["made_splits"] else ""
        table.add_column(split + made, justify="right", no_wrap=True)
    counts = card["counts"]
    for name in card["classes"]:
        table.add_row(Text(name), *(f"{counts[split][name]:,}" for split in SPLITS))
    totals = (f"{sum(counts[split].values()):,}" for split in SPLITS)
    table.add_section()
    table.add_row("all", *totals)
    return table


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("source", f"{card['source']} ({card['kind']})"),
        ("size", _most_frequent(card["sizes"])),
        ("mode", _most_frequent(card["modes"])),
    ]
    if card["window"]:
        facts.append(("window", "{} to {} become 0 to 255".format(*card["window"])))
    if card["groups"]:
        facts.append(("groups", _groups(card["groups"])))
    if card["ignored_columns"]:
        facts.append(("ignored", f"columns {', '.join(card['ignored_columns'])}"))
    for split, width in card["interval_width"].items():
        facts.append((f"{split} says", f"90 % accuracy +- {50 * width:.1f} % (95 % interval)"))
    for finding in card["findings"]:
        facts.append((finding["level"], finding["text"]))
    facts.append(("fingerprint", card["fingerprint"][:16]))
    facts.append(("test fingerprint", card["test_fingerprint"][:16]))
    return facts


def _most_frequent(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} ({count:,})" for name, count in ordered[:MOST_SIZES])
    others = len(ordered) - MOST_SIZES
    return f"{shown} and {others:,} more" if others > 0 else shown


def _groups(groups: Mapping[str, Any]) -> str:
    matched = groups["num_matched"]
    return f"{groups['num_groups']:,}" + (
        f" ({matched:,} files matched the pattern)" if matched is not None else ""
    )


def print_check(console: Console, checked: Checked) -> None:
    """Print the findings and how many there are."""
    for line in finding_lines(checked):
        console.print(line, markup=False, soft_wrap=True)
    num_images = sum(map(len, checked.data.checked.values()))
    console.print(f"{num_images:,} images checked: {_how_many(checked.findings)}.", markup=False)


def _how_many(findings: Sequence[Finding]) -> str:
    if not findings:
        return "nothing found"
    counts = [(sum(f.level == level for f in findings), level) for level in ("error", "warning")]
    return ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for count, level in counts)
