"""What several tests of the search use."""

from __future__ import annotations

from typing import Any

import pytest

from parefront.spaces.distillation import recovery


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every recovery training that really runs."""
    made: list[str] = []
    real = recovery.RecoveryTraining.apply

    def noted(self: Any, model: Any, config: Any, context: Any) -> Any:
        made.append("recover")
        return real(self, model, config, context)

    monkeypatch.setattr(recovery.RecoveryTraining, "apply", noted)
    return made
