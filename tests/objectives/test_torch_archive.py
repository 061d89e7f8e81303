"""Archives of torch programs, and attempts to have one run code when it is loaded."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parefront.errors import BuildError, MeasurementError
from parefront.objectives.targets.quiet import quiet
from parefront.objectives.targets.torch_eager import TorchRuntime
from parefront.spaces.stage import Inputs
from tests.zoo import MODELS, make

Members = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """What is in the archive of an MLP, by name below the folder."""
    module, context = make("mlp")
    path = tmp_path_factory.mktemp("archive") / "model.ep"
    TorchRuntime().build(module, context.example, ["input"], path)
    with zipfile.ZipFile(path) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def pack(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return path


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def edited(members: Members, name: str, edit: Callable[[Any], object]) -> Members:
    content = json.loads(members[name])
    edit(content)
    return members | {name: json.dumps(content).encode()}


def pickled_weight(members: Members, mark: Path) -> Members:
    def edit(content: Any) -> None:
        next(iter(content["config"].values()))["use_pickle"] = True

    changed = edited(members, WEIGHTS, edit)
    first = next(iter(json.loads(members[WEIGHTS])["config"].values()))["path_name"]
    return changed | {f"data/weights/{first}": pickled(mark)}


def pickled_example(members: Members, mark: Path) -> Members:
    return members | {"data/sample_inputs/model.pt": pickled(mark)}


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)
    return buffer.getvalue()


def expression(members: Members, mark: Path) -> Members:
    def edit(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]
        found = [s for value in sizes.values() for s in value["sizes"] if "as_expr" in s]
        code = f"__import__('pathlib').Path({str(mark)!r}).touch() or 2"
        found[0]["as_expr"]["expr_str"] = code

    return edited(members, MODEL, edit)


def opaque_constant(members: Members, mark: Path) -> Members:
    changed = edited(
        members,
        "data/constants/model_constants_config.json",
        lambda content: content["config"].update(
            bomb={
                "path_name": "opaque_obj_0",
                "is_param": False,
                "use_pickle": True,
                "tensor_meta": None,
            }
        ),
    )
    return changed | {"data/constants/opaque_obj_0": pickle.dumps(Bomb(mark))}


ATTACKS = [pickled_weight, pickled_example, expression, opaque_constant]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_with_code_is_refused_before_it_runs(
    attack: Callable[[Members, Path], Members], members: Members, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    path = pack(attack(members, mark), tmp_path / "model.ep")
    with pytest.raises(
        MeasurementError, match=r"torch could not load model\.ep: ValueError: it holds"
    ):
        TorchRuntime().open(path, threads=1)
    assert not mark.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_same_archive_attacks_whoever_loads_it_unchecked(
    attack: Callable[[Members, Path], Members], members: Members, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    path = pack(attack(members, mark), tmp_path / "model.pt2")
    with quiet(), contextlib.suppress(Exception):  # what comes after the code ran is no matter
        torch.export.load(path)
    assert mark.exists()


def model_edits() -> dict[str, Callable[[Any], object]]:
    def graph(content: Any) -> Any:
        return content["graph_module"]["graph"]

    return {
        "operator 'torch.os.system'": lambda c: graph(c)["nodes"][0].update(
            target="torch.os.system"
        ),
        "operator 'torch.ops.aten.__class__.mro'": lambda c: graph(c)["nodes"][0].update(
            target="torch.ops.aten.__class__.mro"
        ),
        "operator 'torch.ops.load_library'": lambda c: graph(c)["nodes"][0]["inputs"][0].update(
            arg={"as_operator": "torch.ops.load_library"}
        ),
        "guards as Python code": lambda c: c.update(guards_code=["print(1)"]),
        "objects beyond tensors": lambda c: graph(c)["nodes"][0].update(
            metadata={"source_fn_stack": "a,torch.os.system"}
        ),
        r"name 'x=print\(1\)'": lambda c: graph(c)["nodes"][0]["inputs"][0].update(
            name="x=print(1)"
        ),
        "structure": lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "collections.namedtuple", "context": "null"}]'
        ),
    }


@pytest.mark.parametrize("said", model_edits())
def test_a_program_that_names_code_is_refused(said: str, members: Members, tmp_path: Path) -> None:
    path = pack(edited(members, MODEL, model_edits()[said]), tmp_path / "model.ep")
    with pytest.raises(MeasurementError, match=f"it holds (the )?{said}"):
        TorchRuntime().open(path, threads=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/aotinductor/model/model.so", "which might be code"),
        ("data/weights/model.pt", "which might be code"),
        ("models/other.json", "which might be code"),
        ("version", "which might be code"),
    ],
)
def test_an_archive_with_more_in_it_is_refused(
    name: str, said: str, members: Members, tmp_path: Path
) -> None:
    path = pack(members | {name: b"x"}, tmp_path / "model.ep")
    with pytest.raises(MeasurementError, match=said):
        TorchRuntime().open(path, threads=1)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, "extra/signature.json"])
def test_an_archive_with_less_in_it_is_refused(name: str, members: Members, tmp_path: Path) -> None:
    path = pack({key: value for key, value in members.items() if key != name}, tmp_path / "m.ep")
    with pytest.raises(MeasurementError, match=r"could not load m\.ep: .*(no archive|signature)"):
        TorchRuntime().open(path, threads=1)


def test_nothing_tells_where_an_archive_was_made(members: Members) -> None:
    text = members[MODEL].decode()
    assert str(Path(__file__).parent.parent) not in text
    assert "stack_trace" not in text


class Mixed(nn.Module):
    """Operators and size arithmetic that real models have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.gelu(self.norm(self.conv(x)), approximate="tanh")
        z = torch.einsum("bct,bdt->bcd", y, y).softmax(dim=-1) * self.scale
        z = F.interpolate(z[:, None], scale_factor=2, mode="bilinear").flatten(1)
        z = torch.where(z > 0.1, z, torch.zeros(1)).clamp(max=3.0)
        z = torch.cat([z, z.new_ones(x.size(0), 2 * x.shape[2])], dim=1)
        return z, (z > 0) & (z < 1) | (z == 3)


@pytest.mark.parametrize("kind", [*MODELS, "mixed"])
def test_ordinary_models_are_not_refused(kind: str, tmp_path: Path) -> None:
    if kind == "mixed":
        generator = torch.Generator().manual_seed(0)
        module: nn.Module = Mixed().eval()
        example: Inputs = (torch.randn(3, 4, 8, generator=generator),)
    else:
        module, context = make(kind)
        example = context.example
    names = [f"x{index}" for index in range(len(example))]
    TorchRuntime().build(module, example, names, tmp_path / "m.ep")
    session = TorchRuntime().open(tmp_path / "m.ep", threads=1)
    # That two inputs have one batch, torch would write into the file as code, which is refused.
    assert session.batch == (None if len(example) == 1 else len(example[0]))
    with torch.no_grad():
        expected = module(*example)
    for got, want in zip(
        session.run({name: x.numpy() for name, x in zip(names, example, strict=True)}),
        (expected,) if isinstance(expected, torch.Tensor) else expected,
        strict=True,
    ):
        np.testing.assert_allclose(np.float64(got), want.double().numpy(), rtol=1e-4, atol=1e-6)


def test_what_could_not_be_loaded_is_not_built(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))  # type: ignore[no-any-return]

    with pytest.raises(BuildError, match="cannot be built for torch: .*it holds"):
        TorchRuntime().build(Branch(), (torch.ones(2, 3),), ["x"], tmp_path / "m.ep")
    assert not list(tmp_path.iterdir())
