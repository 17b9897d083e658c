"""What an exchange costs.

Rule: exact or unknown. Money is Decimal dollars; unknown is None, never 0. Strategy: of each model the first of these
that is known: the job's price, the cost that the server itself reports, the gateway's catalogue, the public list price.
Prices are those of the job, of a file and of the installed genai-prices, never fetched here, so a run can be priced
again.
"""

from runner.pricing.history import history
from runner.pricing.listed import context_window
from runner.pricing.lookup import FREE, UNKNOWN, Charge, Market, Prices, price_of
from runner.pricing.money import cost, upper_bound
from runner.pricing.price import CATALOGUE, JOB, LIST, SERVER, TIERS, Price, at_tier, words

__all__ = [
    "CATALOGUE",
    "FREE",
    "JOB",
    "LIST",
    "SERVER",
    "TIERS",
    "UNKNOWN",
    "Charge",
    "Market",
    "Price",
    "Prices",
    "at_tier",
    "context_window",
    "cost",
    "history",
    "price_of",
    "upper_bound",
    "words",
]
