"""How much is tried each time, and how much with THOROUGH=1 in the environment: minutes, or the better part of an hour.

Rule: what is thinned is thinned here or by a constant that asks here; nothing is left out by name, so that every
statement is shown each time.
"""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("THOROUGH"))
#: Of a property that holds for whatever is drawn.
EXAMPLES = 400 if THOROUGH else 60
