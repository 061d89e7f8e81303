"""What stages that give weights a rule have in common."""

from __future__ import annotations

import copy
from typing import ClassVar

from torch import nn

from parefront.errors import StageError
from parefront.spaces.ruled import Weights, weights_of
from parefront.spaces.stage import C, Form, Stage, StageContext

_NOTHING = "no layer has a weight that is large enough"


class RuleStage(Stage[C, nn.Module]):
    """A stage that gives the weights of a module rules, which pack well for it."""

    form: ClassVar[Form] = Form.MODULE
    packs: ClassVar[bool] = True

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no weight that is large enough."""
        return None if weights_of(model)[0] else _NOTHING

    def copied(self, model: nn.Module) -> tuple[nn.Module, list[Weights], dict[str, str]]:
        """A copy of a model, its weights, and why others are left alone; as `weights_of`.

        Raises:
            StageError: If no weight is large enough.
        """
        result = copy.deepcopy(model)
        weights, left = weights_of(result)
        if not weights:
            raise StageError(_NOTHING)
        return result, weights, left
