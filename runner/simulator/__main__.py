"""`python -m runner.simulator`: the endpoint in a process of its own; its first line on stdout says where it is."""

from __future__ import annotations

import json
import sys

from runner.errors import RunnerError
from runner.simulator.options import options_from


def main(words: list[str]) -> int:
    from runner.simulator.server import serve

    try:
        options, with_parent = options_from(words)
        serve(options, _announce, with_parent=with_parent)
    except RunnerError as error:
        print(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # uvicorn has closed its connections and hands the signal on
        return 130
    return 0


def _announce(base_url: str) -> None:
    print(json.dumps({"base_url": base_url}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
