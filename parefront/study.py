"""The study of the public API: a search that can also draw itself."""

from __future__ import annotations

from pathlib import Path

from parefront.dashboards.front_svg import front_svg
from parefront.dashboards.report import write_report
from parefront.search.study import Study as SearchStudy


class Study(SearchStudy):
    """A search over compressed models; see `parefront.search.study.Study` for its arguments."""

    def report(self, path: str | Path) -> Path:
        """Writes the report of the study: one HTML file that opens offline.

        Args:
            path: File to write; one that ends in `.svg` gets the picture of the front alone.

        Returns:
            The file.

        Raises:
            StudyNotFoundError: If the study was never launched.
        """
        path = Path(path)
        if path.suffix == ".svg":
            path.write_text(front_svg(self.frame(), self.summary()))
        else:
            write_report(path, self.frame(), self.summary(), self.finals())
        return path
