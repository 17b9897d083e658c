"""What the simulator can be told: one dataclass, and the same options as command-line words.

Rule: imports nothing heavy, because the command line shows these options in its help. Each field's metadata is its
help; its name with dashes is the option (`rate_bad_json` is `--rate-bad-json`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from runner.errors import UsageError


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text, "type": type(default)})


def _optional(kind: type, text: str) -> Any:
    return field(default=None, metadata={"help": text, "type": kind})


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Rates are shares of the requests, 0 to 1, and exclude each other: a request meets at most one fault.

    Raises UsageError for what cannot be.
    """

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(0, "port to listen on; 0 takes a free one")
    latency_ms: float = _option(60.0, "median of the lognormal latency, in milliseconds; 0 answers at once")
    sigma: float = _option(0.5, "spread of the lognormal latency")
    rpm: int | None = _optional(int, "requests per minute before 429")
    tpm: int | None = _optional(int, "tokens per minute before 429")
    rate_429: float = _option(0.0, "share answered 429 with a short retry-after")
    rate_500: float = _option(0.0, "share answered 500")
    rate_503: float = _option(0.0, "share answered 503, overloaded")
    rate_reset: float = _option(0.0, "share whose connection is reset before the answer")
    rate_cut: float = _option(0.0, "share whose answer breaks off half-way")
    rate_slow: float = _option(0.0, "share answered ten times slower")
    rate_bad_json: float = _option(0.0, "share answered 200 with broken JSON")
    rate_invalid: float = _option(0.0, "share whose structured answer is wrapped in prose")
    rate_refusal: float = _option(0.0, "share that the model refuses")
    rate_stall: float = _option(0.0, "share whose answer falls silent half-way, its connection open")
    rate_error_inside: float = _option(0.0, "share answered 200 with an error inside; a stream half-way")
    seed: int = _option(0, "another seed gives other answers and other faults")
    no_auth: bool = _option(False, "answer without an API key")
    reject_key: bool = _option(False, "answer 401 to every API key")
    log: str | None = _optional(str, "file that gets one JSON line per request and per answer")

    def __post_init__(self) -> None:
        rates = {field.name: getattr(self, field.name) for field in fields(self) if field.name.startswith("rate_")}
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise UsageError(f"`{_flag(name)} {rate}` is no share", hint="rates go from 0 to 1: 0.05 is 5 %")
        if sum(rates.values()) > 1 + 1e-9:
            raise UsageError(
                f"the fault rates add up to {sum(rates.values()):g}",
                hint="they share the requests: keep the sum within 1",
            )
        for name in ("latency_ms", "sigma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(
                    f"`{_flag(name)} {getattr(self, name)}` is not possible", hint="give a number from 0 up"
                )
        for name in ("rpm", "tpm"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise UsageError(f"`{_flag(name)} {limit}` would answer nothing", hint="leave it out for no limit")


def options_from(words: Sequence[str]) -> tuple[SimulatorOptions, bool]:
    """The options, and whether to end when stdin does (`--with-parent`). Argparse exits 2 on words it cannot read."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.simulator", description="An OpenAI-compatible endpoint that answers offline."
    )
    for option in fields(SimulatorOptions):
        _add(parser, option)
    parser.add_argument("--with-parent", action="store_true", help="end when stdin ends")
    given = vars(parser.parse_args(words))
    with_parent = given.pop("with_parent")
    return SimulatorOptions(**given), with_parent


def words_of(options: SimulatorOptions) -> list[str]:
    """The inverse of `options_from`: only what differs from the defaults."""
    words: list[str] = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default:
            words += [_flag(option.name)] if value is True else [f"{_flag(option.name)}={value}"]
    return words


def _add(parser: argparse.ArgumentParser, option: Field[Any]) -> None:
    kind, text = option.metadata["type"], option.metadata["help"].replace("%", "%%")
    if kind is bool:
        parser.add_argument(_flag(option.name), action="store_true", help=text)
    else:
        shown = "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(_flag(option.name), type=kind, default=option.default, help=text + shown)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
