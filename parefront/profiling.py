"""The profile of a device on the command line: measured once, kept, and shown."""

from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from parefront.errors import StorageError, UsageError
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.profile import Profile, channel_multiple
from parefront.objectives.targets.profile_cache import load_profile, save_profile
from parefront.objectives.targets.profiling import KINDS, REFERENCE, WIDTHS, measure_profile

WIDE = 0.1
"""Half-width of an interval, relative to the ratio, that hides steps."""


def kept_or_measured(
    device: Device, home: Path, runtime: str, threads: int, *, again: bool, console: Console
) -> Profile:
    """The kept profile of a device, measured and kept if there is none.

    A kept one that cannot be used is measured again, and the console says why. Nothing is written
    before everything is measured.

    Args:
        device: Where to measure.
        home: Folder of the studies.
        runtime: Name of the runtime.
        threads: Threads the runtime may use.
        again: Whether to measure even if there is one.
        console: Where progress is shown.

    Raises:
        UsageError: If there is no such runtime.
        StorageError: If the profile cannot be written.
        TrialError: If a small model cannot be built or timed.
    """
    if not again:
        try:
            kept = load_profile(home, device.fingerprint(runtime, threads))
        except StorageError as error:
            console.print(f"measuring again: {error}", highlight=False,
                          soft_wrap=True)  # fmt: skip
        else:
            if kept is not None:
                return kept
    profile = _measured(device, runtime, threads, console)
    save_profile(home, profile)
    return profile


def _measured(device: Device, runtime: str, threads: int, console: Console) -> Profile:
    bar = Progress(
        TextColumn("measuring {task.fields[what]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    count = len(KINDS) * len({*WIDTHS} - {REFERENCE})
    if not console.is_terminal:
        console.print(f"measuring {count} small models, about a minute", highlight=False)
    with bar:
        task = bar.add_task("", total=count, what="")

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, what=what)

        return measure_profile(device, runtime, threads, widths=WIDTHS, progress=show)


def profile_table(profile: Profile) -> Table:
    """A table of all widths: latency of each kind with its interval, and latency per channel.

    Args:
        profile: What was measured.
    """
    table = Table(
        title=f"latency relative to {profile.reference} channels, and per channel",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("width", justify="right")
    for kind in profile.kinds:
        table.add_column(
            f"{kind}\nmultiple\n{channel_multiple(profile, kind)}", justify="right", no_wrap=True
        )
        table.add_column("per\nchannel", justify="right")
    by_kind = {
        kind: {point.width: point for point in points} for kind, points in profile.kinds.items()
    }
    chosen = channel_multiple(profile)
    for width in sorted({width for points in by_kind.values() for width in points}):
        cells = []
        for points in by_kind.values():
            point = points.get(width)
            if point is None:
                cells += ["", ""]
                continue
            half = (point.high - point.low) / 2
            cells.append(f"{point.ratio:.2f} ±{half:.2f}" if half else f"{point.ratio:.2f}")
            cells.append(f"{point.ratio * profile.reference / width:.2f}")
        table.add_row(str(width), *cells, style="bold" if width % chosen == 0 else None)
    return table


def doubt(profile: Profile) -> str:
    """Why a profile is not to be relied on, or an empty text.

    Args:
        profile: What was measured.
    """
    halves = [
        (point.high - point.low) / 2 / point.ratio
        for points in profile.kinds.values()
        for point in points
        if point.width != profile.reference
    ]
    if not halves or statistics.median(halves) <= WIDE:
        return ""
    return (
        f"intervals are wide, ±{statistics.median(halves):.0%} for half of the widths: the machine "
        "was busy; 'parefront profile --again' on an idle one is more certain"
    )


def page_path(output: Path | None, home: Path, profile_id: str) -> Path:
    """Where the page goes, beside the kept profile by default.

    Raises:
        UsageError: If the file is no .html file, or its folder does not exist or takes no files.
    """
    if output is None:
        return home / "profiles" / f"{profile_id}.html"
    if output.suffix != ".html" or not output.parent.is_dir():
        raise UsageError(f"--output: expected an .html file in a folder that exists, got {output}")
    new = not output.exists()
    try:
        output.open("ab").close()  # a minute of measuring is not spent on what cannot be written
        if new:
            output.unlink()
    except OSError as error:
        raise UsageError(f"--output: cannot write {output}: {error.strerror or error}") from error
    return output
