"""Store the answers of all claims, for the table of chapter 11.

    medsaga claims --json | python -m tools.claims

The result is notebooks/recorded/claims.json. It holds what the checks found; the claims themselves
and the code of the checks come from the library.
"""

import json
import sys

from medsaga_lib.files import write_json
from tools.provenance import RECORDED, machine

TARGET = RECORDED / "claims.json"
FIELDS = ("measured", "verdict", "reason", "by")


def main() -> None:
    """Read the answers from standard input and write the file."""
    answers = json.load(sys.stdin)
    origin = {"command": "medsaga claims --json | python -m tools.claims", **machine()}
    origin |= {"environment": answers[0]["environment"]}
    found = {one["id"]: [one[field] for field in FIELDS] for one in answers}
    write_json(TARGET, {"provenance": origin, "found": found})
    print(f"{TARGET}: {len(found)} claims")


if __name__ == "__main__":
    main()
