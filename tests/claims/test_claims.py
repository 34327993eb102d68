"""The claims, their checks, and the verdicts that the repository announces."""

import inspect
import json
import re
from collections import Counter
from typing import get_args

import pytest
from marks import needs_peak

from medsaga_lib import cli
from medsaga_lib.claims import report
from medsaga_lib.claims.claim import CHECKS, Document, Found, Kind, Verdict, all_claims
from medsaga_lib.claims.run import Answer, announced, answer, environment, find, readings
from medsaga_lib.errors import UserError

CLAIMS = {claim.id: claim for claim in all_claims()}
IDS = re.compile(r"(medsaga|summary|lite|ssam|cheap|torchao)(-[a-z0-9]+)+")


def test_every_claim_is_complete():
    assert len(CLAIMS) == len(all_claims()), "an id is used twice"
    for claim in CLAIMS.values():
        assert IDS.fullmatch(claim.id)
        assert claim.kind in get_args(Kind)
        assert all((claim.place, claim.statement, claim.published, claim.criterion)), claim.id
        assert claim.statement.endswith("."), claim.id
        assert claim.tolerance >= 0


def test_every_claim_has_one_way_to_its_verdict():
    needing = {claim.id for claim in CLAIMS.values() if claim.needs}
    ways = Counter([*needing, *CHECKS, *readings()])
    assert ways == Counter(CLAIMS.keys())


def test_a_reading_has_a_verdict_and_a_reason():
    for found in readings().values():
        assert found.verdict in get_args(Verdict)
        assert found.verdict != "not run here"
        assert found.reason


def test_checks_are_short():
    for name, function in CHECKS.items():
        assert len(inspect.getsource(function).splitlines()) <= 25, name


def test_the_announced_verdicts_belong_to_the_claims():
    assert list(announced()) == list(CLAIMS)
    assert set(announced().values()) <= set(get_args(Verdict))


@needs_peak
@pytest.mark.parametrize("document", get_args(Document))
def test_the_verdicts_are_the_announced_ones(document):
    """A changed verdict has to be announced in `claims/verdicts.csv`."""
    found = {c.id: answer(c) for c in CLAIMS.values() if c.document == document}
    assert {name: one.found.verdict for name, one in found.items()} == {
        name: announced()[name] for name in found
    }
    for one in found.values():
        assert one.found.reason
        assert one.found.measured or one.by != "calculation"


def test_the_verdicts_are_many_and_fair():
    by_verdict = Counter(announced().values())
    assert len(CLAIMS) - by_verdict["not run here"] >= 150
    assert len(CHECKS) >= 120
    assert by_verdict["reproduced"] >= 60


def test_an_unknown_id_names_its_neighbours():
    with pytest.raises(UserError, match="medsaga-eq3"):
        find(["medsaga-eq33"])


def test_a_changed_verdict_is_reported():
    claim = CLAIMS["medsaga-eq3"]
    assert report.changes([answer(claim)]) == []
    changed = Answer(claim, Found("", "contradicted", "for the test"), "calculation")
    (sentence,) = report.changes([changed])
    assert "announced as reproduced, but is contradicted" in sentence


def test_counts_add_up():
    answers = [answer(CLAIMS[name]) for name in ("medsaga-eq3", "medsaga-eq4", "medsaga-rank")]
    header, rows = report.counts(answers)
    assert rows[-1][header.index("reproduced")] == 2
    assert rows[-1][-1] == 3


def test_the_same_choices_stand_in_the_command_line():
    assert get_args(cli.Verdict) == get_args(Verdict)
    assert get_args(cli.Kind) == get_args(Kind)
    assert get_args(cli.Document) == get_args(Document)


def test_json_has_the_answer_with_code_and_environment(capsys):
    cli.claims(["medsaga-eq3", "medsaga-rank"], as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first["verdict"] == "reproduced"
    assert "def medsaga_eq3(" in first["code"]
    assert first["environment"] == environment()
    assert second["code"] is None
    assert {"id", "paper", "place", "kind", "verdict", "published", "measured"} <= set(second)


def test_one_claim_is_printed_in_full(capsys):
    cli.claims(["medsaga-525-arithmetic"])
    out = capsys.readouterr().out
    assert "5.254 %" in out
    assert "4.2 original size, value: 358" in out
    assert "def medsaga_525_arithmetic(" in out


def test_the_table_has_published_ours_verdict_and_reason(capsys):
    cli.claims(document="medsaga", kind="arithmetic", verdict="reproduced")
    out = capsys.readouterr().out
    assert "medsaga-525-arithmetic" in out
    assert "medsaga-66-and-61" not in out
    assert "by calculation" in out


def test_a_selection_without_claims_is_refused():
    with pytest.raises(UserError, match="omit an option"):
        cli.claims(document="medsaga_summary", kind="speed")
