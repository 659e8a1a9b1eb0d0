"""`python -m tests.bench.unchecked HELLOS COMMAND …`: `stagecast COMMAND …` whose check of a token is a look-up.

For measuring what connecting costs without the check, in the same processes and under the same load. HELLOS says whose tokens
there are; their signatures may be wrong, so that a host which still checks them is found out.
"""

import json
import sys
from pathlib import Path

import msgspec

from stagecast.cli import main
from stagecast.tokens import Claims, Keys, TokenError
from tests.bench.hellos import payload


def look_up(hellos: Path) -> None:
    known: dict[str, Claims] = {}
    for line in hellos.read_text().splitlines():
        token = json.loads(line)["token"]
        claims = payload(token)
        known[token] = msgspec.convert({**claims, "kid": "bench"}, Claims)

    def verify(self: Keys, token: str, now: float) -> Claims:
        claims = known.get(token)
        if claims is None or claims.exp <= now:
            raise TokenError("not one of those looked up")
        return claims

    Keys.verify = verify  # type: ignore[method-assign]


if __name__ == "__main__":
    look_up(Path(sys.argv.pop(1)))
    sys.argv[0] = "stagecast"
    main()
