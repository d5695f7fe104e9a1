"""Where the project is, and the real data and weights that may stand beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).resolve().parent
SHARED = ROOT.parent / "shared"
