"""The command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from parefront.errors import ParefrontError, UsageError
from parefront.extras import extra_of
from parefront.options import WIDTH, Storage, err, out
from parefront.search.engines.catalog import ENGINES
from parefront.servers import agent, serve_storage

if TYPE_CHECKING:
    from parefront.search.frame import Which

app = typer.Typer(
    name="parefront",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Search for Pareto-optimal compressed PyTorch models, measured on the file that ships.\n\n"
    "Begin with `parefront launch STUDY.toml`; `parefront help study` explains the file.",
)
StudyName = Annotated[str, typer.Argument(help="Name of a study; 'parefront studies' lists them.")]


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"parefront {version('parefront')}\n")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command()
def launch(
    study: Annotated[Path, typer.Argument(help="Study file, in TOML.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, instead of the file's.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time in all, such as 90s or 1h30m, instead of the file's.")
    ] = None,
    storage: Storage = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where trials run, instead of the file's. "
            + " ".join(f"'{name}': {kind.about}." for name, kind in ENGINES.items())
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster to join, instead of the file's: 'auto' or host:port."),
    ] = None,
) -> None:
    """Run a search, or go on with one.

    Ctrl-C ends it after the trial under way, a second Ctrl-C at once; nothing that was measured is
    lost, and launching again goes on.
    """
    from parefront.live import LiveDisplay
    from parefront.search.section import duration
    from parefront.search.storage import home_of
    from parefront.study import Study

    try:
        limit = duration(time) if time is not None else None
    except ValueError as error:
        raise UsageError(f"--time: {error}") from error
    chosen = Study.from_file(study, storage=storage, engine=engine, address=address)
    budget = chosen.budget(trials, limit)
    # Its own descriptor, because what libraries print while a model is exported is thrown away.
    with os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding) as file:
        console = Console(file=file, width=None if file.isatty() else WIDTH, markup=False)
        with LiveDisplay(chosen, budget, console) as display:
            _end_on_signal(chosen.stop, display.ending)
            chosen.optimize(trials=trials, time=limit, progress=display)
    out.print(f"The search ended: {chosen.ended}.", highlight=False)
    summary = chosen.summary()
    for stage, reason in summary.stages_left_out.items():
        out.print(f"stage '{stage}' was left out: {reason}", highlight=False)
    _show(chosen)
    reports = home_of(chosen.storage) / "reports"
    with suppress(OSError):  # what is wrong with the folder is said when the report is written
        reports.mkdir(exist_ok=True)
    path = chosen.report(reports / f"{chosen.name}.html")
    out.print(f"\nreport: {path}", highlight=False, soft_wrap=True)
    if chosen.front().empty:
        raise typer.Exit(1)
    _next_steps(chosen.name, storage)


@app.command()
def studies(storage: Storage = None) -> None:
    """List the studies in a storage."""
    from rich.table import Table

    from parefront.search.opened import study_names
    from parefront.search.storage import url_of
    from parefront.study import Study

    table = Table("study", "trials", "failed", "front", "task", header_style="bold")
    for name in study_names(url_of(storage)):
        chosen = Study.load(name, storage=storage)
        frame = chosen.frame()
        table.add_row(
            name,
            str(len(frame)),
            str(int((frame["state"] == "failed").sum())),
            str(int(frame["on_front"].sum())),
            chosen.settings.study.task,
        )
    out.print(table)


@app.command()
def front(
    study: StudyName,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    certain: Annotated[
        bool, typer.Option("--certain", help="Only what nothing beats with 95 % probability.")
    ] = False,
    possible: Annotated[
        bool, typer.Option("--possible", help="Also what nothing beats with 5 % probability.")
    ] = False,
    storage: Storage = None,
) -> None:
    """Show the candidates that nothing beats, on each target and on each finalist runtime."""
    from parefront.study import Study
    from parefront.tables import front_json

    if certain and possible:
        raise UsageError("give --certain or --possible, not both")
    which: Which = "certain" if certain else "possible" if possible else "on"
    chosen = Study.load(study, storage=storage)
    if json:
        summary = chosen.summary()
        fronts = {name: chosen.front(name, which) for name in (None, *summary.targets)}
        text = front_json(chosen.frame(), fronts, chosen.finals(), summary)
        sys.stdout.write(text + "\n")
    else:
        _show(chosen, which)


@app.command()
def report(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .html or .svg.")],
    storage: Storage = None,
) -> None:
    """Write the report of a study: one HTML file that opens offline.

    A file that ends in .svg gets the picture of the front alone, for a README or a model card.
    """
    from parefront.study import Study

    path = Study.load(study, storage=storage).report(output)
    out.print(f"wrote {path}", highlight=False, soft_wrap=True)


@app.command()
def export(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="New or empty folder.")],
    trial: Annotated[int | None, typer.Option(help="Number of a trial that was measured.")] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            help="'knee', weights such as \"accuracy=3 latency=1\", or bounds such as "
            '"latency_ms<=0.5 and size_kb<=200"; also "knee and size_kb<=200".'
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Pick from the front of this further target.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a candidate as a bundle that runs without parefront.

    The file is read back and measured again first, and the test split for the first time; on
    mismatch nothing is written. Without --trial and --pick the knee of the front is taken.
    """
    from parefront.study import Study

    if trial is not None and pick is not None:
        raise UsageError("give --trial or --pick, not both")
    chosen = Study.load(study, storage=storage)
    wanted = "knee" if pick is None else pick
    number = trial if trial is not None else int(chosen.pick(wanted, target)["trial"])
    path = chosen.export(number, output)
    out.print(f"wrote trial {number} to {path}; try: python {path}/run.py", soft_wrap=True)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="A bundle.")],
    storage: Storage = None,
) -> None:
    """Check that a bundle is what was exported and still gives what it says.

    Files are compared with their checksums and recorded inputs are replayed. Where the study it
    came from is in the storage, accuracy, size and latency are measured again. Nothing in the
    bundle is executed but the model, by its runtime.
    """
    from parefront.search.verify import origin_of
    from parefront.search.verify import verify as verify_bundle

    checks = verify_bundle(directory, study=origin_of(directory, storage))
    signs = {True: ("ok", "green"), False: ("failed", "red"), None: ("not checked", "")}
    for check in checks:
        sign, style = signs[check.passed]
        line = Text.assemble((f"{sign:<12}", style), f" {check.name}: {check.text}")
        out.print(line, soft_wrap=True)
    if any(check.passed is False for check in checks):
        raise typer.Exit(1)


@app.command()
def profile(
    runtime: Annotated[str, typer.Option(help="Runtime to measure.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="Threads the runtime may use.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write, instead of one beside it."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure even if it is known.")] = False,
    storage: Storage = None,
) -> None:
    """Measure how latency steps with the widths of layers on this device, once.

    It takes about a minute and is kept beside the studies of the storage; searches round widths to
    the multiple it finds.
    """
    from parefront.dashboards.profile_page import write_profile_page
    from parefront.objectives.targets.fingerprint import fingerprint_id
    from parefront.objectives.targets.local import LocalDevice
    from parefront.objectives.targets.profile import channel_multiple
    from parefront.objectives.targets.profile_cache import profile_path
    from parefront.profiling import doubt, kept_or_measured, page_path, profile_table
    from parefront.search.storage import home_of, url_of

    cores = len(os.sched_getaffinity(0))
    if threads > cores:
        raise UsageError(f"--threads: expected at most {cores}, one for each core, got {threads}")
    device, home = LocalDevice(), home_of(url_of(storage))
    facts = device.fingerprint(runtime, threads)
    page = page_path(output, home, fingerprint_id(facts))
    try:
        found = kept_or_measured(device, home, runtime, threads, again=again, console=out)
    except KeyboardInterrupt:
        err.print("stopped; nothing was written")
        raise typer.Exit(130) from None
    out.print(profile_table(found))
    multiple = channel_multiple(found)
    out.print(f"widths are rounded to multiples of {multiple}", highlight=False)
    if reason := doubt(found):
        err.print(reason, highlight=False, soft_wrap=True)
    try:
        write_profile_page(page, found)
    except OSError as error:
        raise UsageError(f"cannot write {page}: {error.strerror or error}") from error
    for name, path in (("profile", profile_path(home, facts)), ("page", page)):
        out.print(f"{name}: {path}", highlight=False, soft_wrap=True)


app.command()(agent)
app.command()(serve_storage)


@app.command(name="help")
def help_(
    topic: Annotated[str, typer.Argument(help="'study' explains the study file.")] = "",
) -> None:
    """Explain the study file, or a command."""
    if topic == "study":
        from parefront.manual import study_manual

        out.print(study_manual())
        return
    app([*filter(None, [topic]), "--help"], prog_name="parefront")


def _show(study: Any, which: Which = "on") -> None:  # noqa: ANN401 - importing Study loads torch
    from parefront.tables import finals_table, front_table, no_front

    summary = study.summary()
    if study.front().empty:
        out.print(no_front(study.frame(), summary), highlight=False, soft_wrap=True)
        return
    word = "front" if which == "on" else f"{which} front"
    for target in (None, *summary.targets):
        rows = study.front(target, which)
        title = f"{word} of {study.name}{f' on {target}' if target else ''}"
        if rows.empty:
            out.print(f"{title}: no candidate; what may be on it: --possible", highlight=False)
            continue
        count = f"{len(rows)} candidate{'s' * (len(rows) > 1)}"
        out.print(front_table(rows, summary, title=f"{title}: {count}", target=target))
    finals = study.finals()
    for runtime in finals["runtime"].unique():
        out.print(finals_table(finals, runtime, summary))


def _next_steps(name: str, storage: str | None) -> None:
    from parefront.search.storage import shown

    extra = f" --storage {shown(storage)}" if storage else ""
    out.print("\nNext:")
    for command in (
        f"parefront export {name} --pick knee -o bundles/{name}{extra}",
        f"parefront verify bundles/{name}{extra}",
        f"parefront front {name} --json{extra}",
    ):
        out.print(f"  {command}", highlight=False, soft_wrap=True)


def _end_on_signal(stop: Callable[..., None], say: Callable[[], None]) -> None:
    """First signal: end after the trial under way; second: at once."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        first, asked = not asked, True  # before anything else: the second may come at once
        stop(now=not first)
        if first:
            say()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def main() -> None:
    """Runs the command line; exits with 0 when done, 1 when failed, 2 on wrong use."""
    # Before torch loads its threads: waiting threads that spin take the cores from a measurement,
    # and from each other when another process is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        try:
            app()
        except ModuleNotFoundError as error:
            extra = extra_of(error)
            if extra is None:
                raise
            package = str(error.name).split(".")[0]
            raise UsageError(
                f"this needs the package {package}; try: pip install 'parefront[{extra}]'"
            ) from error
    except ParefrontError as error:
        err.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
