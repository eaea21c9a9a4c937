"""Reads what a compiled program does from its text: operations, bytes moved, and a TPU compiler's cycles.

A loop whose number of turns the program fixes (local steps) counts so often; one whose number comes with the call (rows
of a chunk, arrivals of a row, dispatches) counts once; of the branches of a condition the dearest counts. So a
chunk is one row that dispatches, trains and takes one client or one group of them, and closes its window.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

_BYTES = {
    **dict.fromkeys(("pred", "s4", "u4", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
    "c128": 16,
}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_OPERATION = re.compile(r"^(\(.*?\)|\S+) ([a-z][\w-]*)\(")
_NAME = re.compile(r"%([\w.-]+)")
_MOVES_NOTHING = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"))
_GIVEN = ("parameter", "constant")  # what follows their name in brackets is no operand
_SLICES = ("dynamic-slice", "gather", "slice")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: its result's.
      code: what it does, `fusion`, `dot`, ...
      size: bytes of its result.
      operands: names.
      rest: all that follows the operands: called computations, attributes.
      root: whether its result is the computation's.
    """

    name: str
    code: str
    size: int
    operands: tuple[str, ...]
    rest: str
    root: bool

    def called(self, *attributes: str) -> list[str]:
        """The computations that these attributes name."""
        found = []
        for attribute in attributes:
            for value in re.findall(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.-]+)", self.rest):
                found += _NAME.findall(value)
        return found


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a program does.

    Attributes:
      operations: that the device starts.
      moved: bytes that they read and write, those of the caches included.
      cycles: as the compiler estimates them; 0 where it does not say.
    """

    operations: int = 0
    moved: int = 0
    cycles: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.operations + other.operations, self.moved + other.moved, self.cycles + other.cycles)

    def times(self, number: int) -> Cost:
        """So often."""
        return Cost(self.operations * number, self.moved * number, self.cycles * number)


class Program:
    """A compiled program.

    Args:
      text: as `compiled.as_text()` gives it.
    """

    def __init__(self, text: str) -> None:
        self._computations: dict[str, list[Instruction]] = {}
        self._entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self._computations[head[1]] = []
                if line.startswith("ENTRY"):
                    self._entry = head[1]
            elif current is not None and (found := _read(line)) is not None:
                current.append(found)
        self._costs: dict[str, Cost] = {}

    def cost(self) -> Cost:
        """Of the whole program."""
        return self._of(self._entry)

    def named(self, word: str) -> int:
        """How many instructions of that code there are, wherever."""
        return sum(one.code == word for lines in self._computations.values() for one in lines)

    def _of(self, computation: str) -> Cost:
        if computation not in self._costs:
            lines = self._computations.get(computation, [])
            known = {one.name: one for one in lines}
            self._costs[computation] = sum((self._one(one, known) for one in lines), Cost())
        return self._costs[computation]

    def _one(self, one: Instruction, known: dict[str, Instruction]) -> Cost:
        if one.code in _MOVES_NOTHING:
            return Cost()
        if one.code == "while":
            (body,), condition = one.called("body"), one.called("condition")
            return self._of(body).times(self._turns(one, condition[0]))
        if one.code == "conditional":
            branches = one.called("branch_computations", "true_computation", "false_computation")
            return max((self._of(branch) for branch in branches), key=lambda cost: (cost.moved, cost.operations))
        if one.code == "call":
            return sum((self._of(name) for name in one.called("to_apply", "calls")), Cost())
        found = re.search(r'"estimated_cycles":"(\d+)"', one.rest)
        return Cost(1, self._moved(one, known), int(found[1]) if found else 0)

    def _turns(self, loop: Instruction, condition: str) -> int:
        """How often a loop runs; 1 where the program does not fix it."""
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(found[1])
        lines = self._computations.get(condition, [])
        root = next((one for one in lines if one.root), None)
        if root is None or root.code != "compare" or "direction=LT" not in root.rest:
            return 1
        bounds = [one for one in lines if one.name in root.operands and one.code == "constant"]
        number = re.search(r"^(\d+)\)", bounds[0].rest) if bounds else None
        return int(number[1]) if number else 1

    def _moved(self, one: Instruction, known: dict[str, Instruction]) -> int:
        """Bytes that one instruction reads and writes; of what it slices or writes a slice into, the slice."""
        sizes = [known[name].size if name in known else 0 for name in one.operands]
        inner = self._computations.get(next(iter(one.called("calls")), ""), []) if one.code == "fusion" else []
        if not inner:
            return _plain(one, sizes, lambda name: known[name].size if name in known else 0)
        by_name = {line.name: line for line in inner}
        parameters = {}
        for line in inner:
            if line.code == "parameter" and (found := re.match(r"(\d+)\)", line.rest)):
                parameters[line.name] = int(found[1])
        total, written = 0, one.size
        for name, number in parameters.items():
            uses = [line for line in inner if name in line.operands]
            whole = sizes[number] if number < len(sizes) else 0
            updates = [u for u in uses if u.code == "dynamic-update-slice" and u.operands[0] == name]
            if uses and all(u.code in _SLICES or u in updates for u in uses):
                total += min(whole, sum(u.size for u in uses if u.code in _SLICES))
                for update in updates:  # the rest of the array stays where it is
                    part = by_name[update.operands[1]].size if update.operands[1] in by_name else 0
                    written -= max(0, update.size - part)
            else:
                total += whole
        return total + max(written, 0)


def _plain(one: Instruction, sizes: list[int], size_of: Callable[[str], int]) -> int:
    """Bytes of an instruction that is no fusion."""
    if one.code in _SLICES:
        return 2 * one.size
    if one.code == "dynamic-update-slice":
        return 2 * size_of(one.operands[1])
    if one.code == "scatter":
        return 2 * sum(sizes[len(sizes) // 2 + 1 :]) + sum(sizes[1:2])
    return one.size + sum(sizes)


def _read(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if found is None or (operation := _OPERATION.match(found[3])) is None:
        return None
    rest = found[3][operation.end() :]
    end = _closing(rest)
    code = operation[2]
    kept = rest if code in _GIVEN else rest[end + 1 :]
    return Instruction(found[2], code, _size(operation[1]), tuple(_NAME.findall(rest[:end])), kept, bool(found[1]))


def _closing(text: str) -> int:
    """Where the bracket ends that was opened before the text."""
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at
    return len(text)


@functools.lru_cache(maxsize=4096)
def _size(shape: str) -> int:
    """Bytes of a type such as `f32[8,16]{1,0}`, or of a tuple of them."""
    total = 0
    for kind, axes in _ARRAY.findall(shape):
        if kind in _BYTES:
            count = 1
            for axis in axes.split(","):
                count *= int(axis) if axis else 1
            total += count * _BYTES[kind]
    return total
