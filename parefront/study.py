"""The study of the public API: a search that can also draw itself."""

from __future__ import annotations

from pathlib import Path

from parefront.dashboards.front_svg import front_svg
from parefront.dashboards.report import write_report
from parefront.errors import UsageError
from parefront.search.study import Study as SearchStudy


class Study(SearchStudy):
    """A search over compressed models; see `parefront.search.study.Study` for its arguments."""

    def report(self, path: str | Path) -> Path:
        """Writes the report of the study: one HTML file that opens offline.

        Args:
            path: File to write, which ends in `.html`, or in `.svg` for the picture of the front
                alone.

        Returns:
            The file.

        Raises:
            UsageError: If the file ends in something else, or cannot be written.
            StudyNotFoundError: If the study was never launched.
        """
        path = Path(path)
        if path.suffix not in (".html", ".svg"):
            raise UsageError(f"expected a file that ends in .html or .svg, got {path}")
        frame, summary = self.frame(), self.summary()
        try:
            if path.suffix == ".svg":
                path.write_text(front_svg(frame, summary), encoding="utf-8")
            else:
                write_report(path, frame, summary, self.finals())
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        return path
