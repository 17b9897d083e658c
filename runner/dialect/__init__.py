"""What each provider behind the gateway takes: found from the model's name, checked, and fitted.

Rule: pure. `table` and `models` hold the facts, `rules` judges, `fitting` changes; what nothing is known of is sent as
it was written.
"""

from runner.dialect.fitting import DROP, Bodies, Dialect, Terms, adapt, plain_roles
from runner.dialect.models import Provider, model_of, provider_of
from runner.dialect.rules import Finding, Severity, check
from runner.dialect.table import TABLE, lines

__all__ = [
    "DROP",
    "TABLE",
    "Bodies",
    "Dialect",
    "Finding",
    "Provider",
    "Severity",
    "Terms",
    "adapt",
    "check",
    "lines",
    "model_of",
    "plain_roles",
    "provider_of",
]
