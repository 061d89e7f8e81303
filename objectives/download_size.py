"""Size of the artifact as it travels: compressed."""

from __future__ import annotations

import zstandard

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene

LEVEL = 19
"""The strongest of zstandard's ordinary levels: slow to compress, as fast to unpack as any."""
_PIECE = 1 << 20


class DownloadSize:
    """Bytes of the file after zstandard at level 19; lower is better.

    Weights that repeat or are sparse travel in fewer bytes than they take on the disk.
    """

    name = "download_size"
    column = "download_bytes"
    unit = "B"
    dear = True
    noisy = False
    on_device = False
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Smaller downloads are better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:  # noqa: ARG002
        """Compresses the file piece by piece and counts what comes out.

        Raises:
            MeasurementError: If the file cannot be read.
        """
        packer = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=artifact.size_bytes)
        packed = 0
        try:
            with artifact.path.open("rb") as file:
                while piece := file.read(_PIECE):
                    packed += len(packer.compress(piece))
            packed += len(packer.flush())
        except (OSError, zstandard.ZstdError) as error:
            raise MeasurementError(f"cannot compress {artifact.path.name}: {error}") from error
        library = ".".join(map(str, zstandard.ZSTD_VERSION))
        return Measurement.exact(packed, self.unit, f"zstandard {library}, level {LEVEL}")
