"""The command line: words in, exit code out.

Rule: stdout is data, stderr is talk. Every command ends in an exit code of the contract; a user's mistake never shows a
traceback. Heavy imports live inside the functions, so `runner --help` answers at once. Every option can be given in the
environment (variables.py).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from runner import accounting, looking, previewing, pricelist
from runner.errors import RunnerError, UsageError
from runner.looking import words_of
from runner.previewing import INPUT, JOB, LIMIT, SETS, asked_by
from runner.say import Say, plain
from runner.variables import give_variables

if TYPE_CHECKING:
    from runner.ending import Ending
    from runner.opening import RunOptions
    from runner.prepare import Asked


class _ReaderGoneError(Exception):
    """Nobody reads our stdout any more (`runner export RUN | head`)."""


class _Commands(click.Group):
    """Gives every option its variables. click ends a broken pipe with exit code 1, which here means that rows are not
    ok."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        give_variables(name or cmd.name or "", cmd.params)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as gone:
            raise _ReaderGoneError from gone


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bulk-runner", prog_name="runner")
def commands() -> None:
    """One prompt over a million rows, once; the answers land in Parquet."""


def _run_options(command: Any) -> Any:
    """The options that `run` and `retry` share."""
    shared = [
        option("-o", "--output", type=click.Path(path_type=Path), help="The run's directory [directory/NAME]."),
        SETS,
        option("-c", "--concurrency", type=click.IntRange(1), help="Requests in flight."),
        option("--simulate", is_flag=True, help="On the embedded simulator, into NAME.simulated; no key, no cost."),
        option("--allow-failed", metavar="N|N%", help="Exit 0 with up to so many rows not ok."),
        option("--max-failures", metavar="N|N%", help="Stop when more rows than this are not ok."),
        option("--json", "as_json", is_flag=True, help="One JSON line about the ending on stdout, no talk."),
        option("-q", "--quiet", is_flag=True, help="Errors only."),
        option("-v", "--verbose", is_flag=True, help="More detail."),
        option("--yes", is_flag=True, help="Spend what the job would ask about (budget.confirm_above_usd)."),
        option("--max-usd", metavar="USD", help="Spend no more than this over the whole run [budget.max_usd]."),
    ]
    for add in reversed(shared):
        command = add(command)
    return command


@commands.command()
@JOB
@INPUT
@LIMIT
@_run_options
@option("--fresh", is_flag=True, help="Move the old run aside and start anew.")
@option(
    "--accept-changes",
    is_flag=False,
    flag_value="all",
    metavar="[N]",
    help="A changed job or input: ask changed rows again (at most N), let removed ones drop out.",
)
@option(
    "--keep-answers", is_flag=True, help="A changed job: keep every ok answer, ask only the rest by the edited job."
)
@option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Send N rows drawn at random, keep them, and tell of the rest.",
)
def run(job: Path, **given: Any) -> None:
    """Run a job, or go on with it: the same command again continues where the last one stopped."""
    from runner.opening import RunOptions

    asked = asked_by(job, given["sets"], given["inputs"], given["limit"])
    options = RunOptions(
        given["fresh"],
        given["allow_failed"],
        given["max_failures"],
        accept_changes=_accepted(given["accept_changes"]),
        keep_answers=given["keep_answers"],
        sample=given["sample"],
    )
    _carry_out(asked, options, given)


def _accepted(text: str | None) -> int | bool | None:
    if text is None or text == "all":
        return None if text is None else True
    if not text.isdigit():
        raise UsageError(f"--accept-changes {text}: not a number of rows", hint="leave the number out for all of them")
    return int(text)


@commands.command()
@click.argument("target", metavar="JOB|RUN", type=click.Path(path_type=Path))
@_run_options
@option("--status", "statuses", multiple=True, metavar="S", help="Rows of this status: truncated, refused, failed, …")
@option("--kind", "kinds", multiple=True, metavar="K", help="Rows that failed with this kind: TIMEOUT, SERVER, …")
def retry(target: Path, **given: Any) -> None:
    """Send final rows again: everything that is not ok, or the rows of a status or kind."""
    from runner.opening import RunOptions
    from runner.records import Kind, Status
    from runner.reopen import Selection

    statuses = words_of(given["statuses"], list(Status), "--status")
    kinds = words_of([kind.upper() for kind in given["kinds"]], list(Kind), "--kind")
    options = RunOptions(False, given["allow_failed"], given["max_failures"], Selection(statuses, kinds))
    _carry_out(asked_by(target, given["sets"], (), None), options, given)


def _carry_out(asked: Asked, options: RunOptions, given: dict[str, Any]) -> None:
    """Run a job as it is asked for, and end as it ends."""
    import json
    from dataclasses import replace

    from runner.ending import left_early, refusal
    from runner.running import run as run_job

    def last_line(members: dict[str, Any]) -> None:
        if given["as_json"]:
            click.echo(json.dumps(members, ensure_ascii=False))

    asked = _also(asked, given)
    say = Say(quiet=given["quiet"] or given["as_json"], verbose=given["verbose"])
    options = replace(options, yes=given["yes"], ask=_question(say))
    try:
        ending = run_job(asked, options, say)
    except RunnerError as error:
        last_line(refusal(asked, error))
        raise
    except (KeyboardInterrupt, SystemExit) as left:
        code = left.code if isinstance(left, SystemExit) else None
        last_line(left_early(asked, code if isinstance(code, int) else 130))
        raise
    last_line(ending.to_json())
    _end(ending, say)


def _question(say: Say) -> Callable[[str], bool] | None:
    """How to ask a yes or a no; None where nobody reads or answers."""
    if say.quiet or not (say.on_terminal and sys.stdin and sys.stdin.isatty()):
        return None

    def ask(question: str) -> bool:
        click.echo(f"{plain(question)} [y/N] ", nl=False, err=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask


def _end(ending: Ending, say: Say) -> None:
    from runner.summary import lines

    for line in lines(ending):
        say.line(line)
    if ending.error:
        say.error(ending.error)
    sys.exit(ending.exit_code)


_BEFORE = (previewing.check, previewing.render)
_AFTER = (looking.status, looking.show, looking.export, accounting.cost, accounting.report, pricelist.prices)
for command in (*_BEFORE, *_AFTER):
    commands.add_command(command)


class _Simulate(click.Command):
    """Its options are the fields of SimulatorOptions, looked up when they are needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from dataclasses import fields

        from runner.simulator import SimulatorOptions

        options: list[click.Parameter] = []
        for known in fields(SimulatorOptions):
            kind, flag = known.metadata["type"], "--" + known.name.replace("_", "-")
            shape = {"is_flag": True} if kind is bool else {"type": kind, "default": known.default}
            options.append(click.Option([flag, known.name], help=known.metadata["help"], show_default=True, **shape))
        give_variables("simulate", options)
        self.params = options
        return super().get_params(ctx)


@commands.command(cls=_Simulate)
def simulate(**given: Any) -> None:
    """Serve the simulator: an OpenAI-compatible endpoint on this machine that makes its answers up."""
    from runner.simulator import SimulatorOptions, serve

    serve(SimulatorOptions(**given), click.echo)


@commands.command()
def schema() -> None:
    """Print the JSON Schema of the job file, for editors."""
    import orjson

    from runner.spec import json_schema

    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))


def _also(asked: Asked, given: dict[str, Any]) -> Asked:
    from dataclasses import replace

    sets = asked.sets
    if given["concurrency"]:
        sets += (f"limits.concurrency={given['concurrency']}",)
    if given["max_usd"] is not None:
        sets += (f"budget.max_usd={given['max_usd']}",)
    output = given["output"].absolute() if given["output"] else None
    return replace(asked, sets=sets, output=output, simulate=given["simulate"])


def _leave(number: int, _: object) -> None:
    """What no command handles itself ends it like Ctrl-C does: what it has made half is taken away."""
    sys.exit(128 + number)


def main() -> None:
    """The entry point: errors become sentences and exit codes."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        commands.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except RunnerError as error:
        Say().error(error)
        sys.exit(error.exit_code)
    except _ReaderGoneError:
        # Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:  # noqa: BLE001 - the last line: a bug
        traceback.print_exc()
        Say().error(RunnerError("this is a bug in runner", hint="report the lines above; nothing acknowledged is lost"))
        sys.exit(RunnerError.exit_code)
