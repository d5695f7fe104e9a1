"""Why the test result is not the forecast, as blocks. Knows an explanation; computes none."""

from studies.ledger import Opening
from studies.report.blocks import Block, Paragraph
from studies.report.evidence import Evidence


def explained(evidence: Evidence, opening: Opening) -> list[Block]:
    """The waterfall of each strategy, with causes and remedies."""
    return [Paragraph(content="Not built yet.")]
