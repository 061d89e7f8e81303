"""`torch.export` archives that are safe to load.

`torch.export.load` unpickles, evaluates expressions and looks up functions as the archive tells
it to. An archive is loaded only if it contains nothing but what `write_archive` writes: plain
weights, operators of ATen, arithmetic on sizes and a signature.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from parefront.errors import BuildError
from parefront.objectives.targets.quiet import quiet
from parefront.objectives.targets.signature import Signature

_SIGNATURE = "signature.json"
_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_MEMBERS = re.compile(
    rf"{_MODEL}|{_WEIGHTS}|{_CONSTANTS}|data/weights/weight_\d+|data/constants/tensor_\d+|"
    rf"data/sample_inputs/model\.pt|extra/{_SIGNATURE}|archive_format|archive_version|byteorder|"
    r"\.data/version|\.data/serialization_id"
)
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!__)\w+\.(?!__)\w+|torch\.ops\.aten\.__(and|or|xor|lshift|rshift)__\.\w+|"
    r"torch\.sym_(max|min|int|float|not|ite|sum|sqrt)|math\.(ceil|floor|trunc)|"
    r"_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
_FUNCTIONS = (
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|"
    "ModularIndexing|IntTrueDiv|FloatTrueDiv|FloorToInt|CeilToInt|TruncToInt|ToFloat|PowByNatural|"
    "Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not|Identity"
)
_EXPRESSION = re.compile(
    rf"(?:(?:{_FUNCTIONS})(?=\()|'[su]\d+'|[su]\d+|(?:positive|integer|nonnegative|real)=True|"
    r"True|False|-?\d+(?:\.\d+)?(?:e-?\d+)?|'-?\d+(?:\.\d+)?'|precision=\d+|[(), ])*"
)
_TREE = re.compile(
    r'(?:"type": (?:null|"builtins\.(?:tuple|list|dict)")|"context": (?:null|"null"|"\[\]")|'
    r'"children_spec":|[1\[\]{}, ])*'
)
_PLAIN = re.compile(r"[\w.+-]*")
"""What names may look like: they end up in the source code of the loaded program."""


def write_archive(program: ExportedProgram, signature: Signature, path: Path) -> None:
    """Writes a program as an archive.

    Source positions and example inputs are left out: equal programs give equal bytes, and
    nothing tells where they were made.

    Args:
        program: The program; its nodes lose their metadata.
        signature: Its inputs.
        path: File to write.

    Raises:
        BuildError: If the program needs something that could not be loaded safely.
    """
    kept = {"val", "tensor_meta"}
    for node in program.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in kept}
    program._example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={_SIGNATURE: signature.to_json()})
    data = buffer.getvalue()
    try:
        _check(data)
    except ValueError as error:
        raise BuildError(str(error)) from error
    path.write_bytes(data)


def read_archive(path: Path) -> tuple[ExportedProgram, Signature]:
    """Reads what `write_archive` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no archive, or holds something that could run code on loading.
        Exception: Whatever torch raises on an archive that contradicts itself.
    """
    checked = io.BytesIO()
    # Packed anew: what torch's own reader of zip files finds is then what was checked.
    with zipfile.ZipFile(checked, "w") as file:
        for name, data in _check(path.read_bytes()).items():
            file.writestr(f"archive/{name}", data)
    checked.seek(0)
    with quiet():
        # Not `torch.export.load`: it tries older, pickled formats on what it cannot read.
        contents = load_pt2(checked)
    return contents.exported_programs["model"], Signature.from_json(
        contents.extra_files[_SIGNATURE]
    )


def _check(data: bytes) -> dict[str, bytes]:
    """Checks that loading an archive runs nothing.

    Returns:
        What is in the archive, by name below its single folder.

    Raises:
        ValueError: If it might; the message says what is in the way.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = _members(file)
            found = {short: file.read(name) for short, name in members.items()}
        for config in (_WEIGHTS, _CONSTANTS):
            _check_payloads(json.loads(found[config]))
        _check_model(json.loads(found[_MODEL]))
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RecursionError) as error:
        raise ValueError(f"it is no archive of an exported program ({error})") from None
    if found.get("data/sample_inputs/model.pt"):
        raise ValueError("it holds pickled example inputs")
    if f"extra/{_SIGNATURE}" not in found:
        raise ValueError("it has no signature of a parefront artifact")
    return found


def _members(file: zipfile.ZipFile) -> dict[str, str]:
    """Names in the archive, by what they are below its single folder."""
    found: dict[str, str] = {}
    for name in file.namelist():
        short = name.partition("/")[2]
        if not _MEMBERS.fullmatch(short):
            raise ValueError(f"it holds {name!r}, which might be code")
        if short in found:
            raise ValueError(f"it holds {short!r} twice")
        found[short] = name
    return found


def _check_payloads(config: object) -> None:
    for entry in _objects(config):
        if entry.get("use_pickle"):
            raise ValueError("it holds a pickled tensor")
        for key in entry:  # names of weights
            _match(_PLAIN, "name", key)


def _check_model(model: object) -> None:
    if not isinstance(model, dict) or model.get("guards_code") != []:
        raise ValueError("it holds guards as Python code")
    for entry in _objects(model):
        if "as_custom_obj" in entry or "as_graph" in entry or entry.get("metadata"):
            raise ValueError("it holds objects beyond tensors")
        for key, value in entry.items():
            _match(_PLAIN, "name", key)
            if key in ("as_string", "as_strings"):  # arguments of operators are quoted
                continue
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    _match(*_rule(key, entry), text)


def _rule(key: str, entry: Mapping[str, object]) -> tuple[re.Pattern[str], str]:
    """What a text must look like, and what it is."""
    if key == "as_operator" or (key == "target" and "inputs" in entry):
        return _OPERATORS, "operator"
    if key == "expr_str":
        return _EXPRESSION, "expression"
    if key in ("in_spec", "out_spec"):
        return _TREE, "structure"
    return _PLAIN, "name"


def _match(allowed: re.Pattern[str], what: str, text: str) -> None:
    if not allowed.fullmatch(text):
        raise ValueError(f"it holds the {what} {text[:200]!r}, which is not known to be safe")


def _objects(content: object) -> Iterator[dict[str, object]]:
    """All objects in a JSON document."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
