"""What runs a study is handed what shows it, and knows none of it by itself."""

import pytest

from studies import workflow
from studies.watchers import NOWHERE


@pytest.mark.parametrize(
    ("verb", "act"),
    [("run", "run_study"), ("confirm", "confirm_stored"), ("evaluate", "evaluate_bundle")],
)
def test_every_act_is_shown_in_the_dashboard(monkeypatch, verb, act):
    handed = []
    monkeypatch.setattr(workflow, act, lambda *given, faces: handed.append((given, faces)))
    getattr(workflow, verb)("options", "progress", "signals")
    ((given, faces),) = handed
    assert given[:3] == ("options", "progress", "signals") and faces is workflow.FACES
    assert faces.publisher is workflow.Publisher and faces.pictures is workflow.trial_pictures


def test_shown_nowhere_a_study_is_told_to_nobody_and_drawn_by_nobody():
    said = []
    nobody = NOWHERE.publisher(None, "s", said.append)
    nobody.publish(wait_seconds=0)
    nobody.publish_if_due()
    assert said == [] and NOWHERE.pictures is None
