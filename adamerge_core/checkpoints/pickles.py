"""Pickles of plain values, tensors and modules, read without running anything that they name.

A pickle is a program. This reads the few instructions that a state dict or a module needs and
refuses all others; what it names is looked up in no module. A tensor, an object of a class and a
text of bytes come back as descriptions, before any memory is taken for their content. So neither
time nor memory is beyond a small multiple of the file's bytes.
"""

import pickle
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

OPERATIONS = 2_000_000
"""Most instructions: a state dict takes 40 a tensor."""


class PickleError(Exception):
    """A pickle that is damaged, or asks for something that no state dict needs."""


@dataclass(frozen=True)
class Name:
    """Something that the pickle names, `module name`; nothing is looked up."""

    text: str


@dataclass(frozen=True)
class Bytes:
    """Bytes that the pickle holds: where they lie in its file, not read."""

    start: int
    end: int


@dataclass(eq=False)
class Instance:
    """An object of a class that the pickle names; the class is not looked up, nor run."""

    kind: str
    """`module name` of the class."""
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Allowed:
    """What a pickle may ask for beyond a state dict's few functions."""

    classes: frozenset[str] = frozenset()
    """Classes, as `module name`; where there are any, objects of all classes come back as
    Instances, for the caller to tell which they are."""
    inner_file: "Callable[[Bytes], Storage] | None" = None
    """Reads the storage that torch.storage._load_from_bytes would, where it is allowed."""


@dataclass(frozen=True)
class Storage:
    """The memory of tensors, as described: entries of one dtype under a key."""

    kind: str
    """The name of torch's class: torch FloatStorage."""
    key: str
    count: int
    """Entries; bytes of an untyped one."""


@dataclass(frozen=True)
class TensorView:
    """A tensor as described: entries of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None
    """torch's name, where the storage has none."""


_MARK = object()

_NEEDS_OTHERS = {
    "_get_layout": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_sparse_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_sparse_csr_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_qtensor": "a quantized tensor; save tensor.dequantize()",
    "_rebuild_meta_tensor_no_storage": "a tensor on the device meta, which has no values",
    "_rebuild_nested_tensor": "a nested tensor; save its parts as plain ones",
    "_rebuild_njt": "a nested tensor; save its parts as plain ones",
    "_rebuild_wrapper_subclass": "a tensor subclass; save plain tensors",
    "_rebuild_from_type_v2": "a tensor subclass; save plain tensors",
}


def read(file: BinaryIO, allowed: Allowed = Allowed()) -> Any:
    """Read the next pickle of a file: dicts, lists, tuples, numbers, texts, TensorViews, Names.

    Sets come as lists, bytes as Bytes and, where `allowed` has classes, objects as Instances.
    Raises PickleError, whose message says what is wrong or asked for.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for number, (name, argument) in enumerate(_instructions(file)):
            if number > OPERATIONS:
                raise PickleError(f"more than {OPERATIONS} instructions")
            if name == "STOP":
                (result,) = stack
                return result
            _do(name, argument, stack, memo, allowed)
    except PickleError:
        raise
    except Exception as error:  # pickletools and the stack of a damaged pickle raise many types
        raise PickleError(f"a damaged pickle: {type(error).__name__} {str(error)[:200]}") from error
    raise PickleError("a pickle without an end")


def values_in(value: Any) -> Iterator[Any]:
    """Go through what `read` gave: objects, and all values that hold no others.

    Dicts, lists, tuples and objects are each entered once, so no cycle and no doubling takes long.
    """
    seen: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if not isinstance(each, dict | list | tuple | Instance):
            yield each
        elif id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, Instance):
                yield each
                left.append(each.attributes)
            else:
                left.extend(each.values() if isinstance(each, dict) else each)


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_BYTES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
"""Instructions that are followed by bytes: how long their length is."""


def _instructions(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Give name and argument of each, as pickletools.genops does, with bytes left in the file."""
    while code := file.read(1):
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise PickleError(f"an unknown instruction {code!r}")
        if opcode.name in _BYTES:
            width = _BYTES[opcode.name]
            length = int.from_bytes(file.read(width), "little")
            start = file.tell()
            # an end beyond the file's leaves no instruction to read, which is an error
            yield opcode.name, Bytes(start, file.seek(start + length))
        else:
            yield opcode.name, None if opcode.arg is None else opcode.arg.reader(file)


def _do(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], allowed: Allowed) -> None:
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name]())
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "PROTO":
        if argument > pickle.HIGHEST_PROTOCOL:
            raise PickleError(f"a pickle of protocol {argument}")
    elif name == "REDUCE":
        _reduce(stack, allowed)
    elif name == "NEWOBJ" and allowed.classes:
        _new_object(stack)
    elif name != "FRAME":
        if name not in _CHANGES:
            raise PickleError(f"the instruction {name}, which no state dict needs")
        _CHANGES[name](stack, argument)


def _since_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise PickleError("an instruction without its mark")


def _tuple_of(count: int) -> Callable[[list[Any], Any], None]:
    def change(stack: list[Any], _: Any) -> None:
        items = tuple(stack[-count:])
        if len(items) < count:
            raise PickleError("a tuple of missing items")
        stack[-count:] = [items]

    return change


def _tuple(stack: list[Any], _: Any) -> None:
    items = _since_mark(stack)
    stack.append(tuple(items))


def _list(stack: list[Any], _: Any) -> None:
    items = _since_mark(stack)
    stack.append(items)


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise PickleError("items added to what is no list")
    stack[-1].extend(items)


def _set(stack: list[Any], pairs: list[Any]) -> None:
    if not isinstance(stack[-1], dict) or len(pairs) % 2:
        raise PickleError("entries set in what is no dict")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # anything else may take forever to hash
        if type(key) not in (str, int, float, bool, type(None)):
            raise PickleError(f"a dict whose key is {type(key).__name__}, not text or a number")
        # a number is the key of a model's tensor as little as a text twice
        if key in stack[-1]:
            raise PickleError(f"a dict that has the key {ascii(key)[:100]} twice")
        stack[-1][key] = value


def _global(stack: list[Any], argument: str) -> None:
    stack.append(Name(argument))


def _stack_global(stack: list[Any], _: Any) -> None:
    module, name = stack.pop(-2), stack.pop()
    stack.append(Name(f"{module} {name}"))


def _build(stack: list[Any], _: Any) -> None:
    """An OrderedDict's attributes, which are the module's versions, are passed over."""
    attributes = stack.pop()
    if isinstance(stack[-1], Instance) and isinstance(attributes, dict):
        if stack[-1].attributes:
            raise PickleError("an object whose attributes are set twice")
        stack[-1].attributes = attributes
    elif not isinstance(stack[-1], dict) or not isinstance(attributes, dict):
        raise PickleError("attributes of what is no dict")


def _new_object(stack: list[Any]) -> None:
    arguments, kind = stack.pop(), stack.pop()
    if not isinstance(kind, Name) or arguments != ():
        raise PickleError("an object of no class, or one that is made with arguments")
    stack.append(Instance(kind.text))


def _persistent(stack: list[Any], _: Any) -> None:
    match stack.pop():
        case ("storage", Name(text=kind), str(key), str(), int(count)):
            stack.append(Storage(kind, key, count))
        case ("storage", Name(text=kind), str(key), str(), int(count), None):
            stack.append(Storage(kind, key, count))
        case _:
            raise PickleError("a storage that is described in no known way")


def _reduce(stack: list[Any], allowed: Allowed) -> None:
    arguments, function = stack.pop(), stack.pop()
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise PickleError("a call of what is no function")
    stack.append(_called(function.text, arguments, allowed))


def _called(function: str, arguments: tuple[Any, ...], allowed: Allowed) -> Any:
    """Do what the few functions of a state dict's or a module's pickle would do."""
    match function, arguments:
        case "torch.storage _load_from_bytes", (Bytes() as inner,) if allowed.inner_file:
            return allowed.inner_file(inner)
        case "torchvision.transforms.functional InterpolationMode", (str() as value,) if (
            function in allowed.classes
        ):
            return value
        case "collections OrderedDict", ():
            return {}
        case "torch Size", (tuple() | list() as shape,):
            return tuple(shape)
        case "torch device", (str() as kind, *_):
            return kind
        case "__builtin__ set" | "builtins set", (list() as items,):
            return items
        case "torch._utils _rebuild_parameter", (TensorView() as view, bool(), dict()):
            return view
        case "torch._utils _rebuild_tensor", (Storage() as storage, offset, shape, strides):
            return _view(storage, offset, shape, strides)
        case (
            "torch._utils _rebuild_tensor_v2",
            (Storage() as storage, offset, shape, strides, bool(), dict()),
        ):
            return _view(storage, offset, shape, strides)
        case (
            "torch._utils _rebuild_tensor_v3",
            (Storage() as storage, offset, shape, strides, bool(), dict(), Name(text=dtype)),
        ):
            return _view(storage, offset, shape, strides, dtype)
    name = function.rpartition(" ")[2]
    raise PickleError(
        f"{_NEEDS_OTHERS[name]}"
        if name in _NEEDS_OTHERS
        else f"a call of {function.replace(' ', '.')[:100]}, which no state dict needs"
    )


def _view(
    storage: Storage, offset: Any, shape: Any, strides: Any, dtype: str | None = None
) -> TensorView:
    numbers = (offset, *shape, *strides)
    if not all(type(each) is int and 0 <= each < 2**63 for each in numbers):
        raise PickleError("a tensor whose offset, shape or strides are no whole numbers from 0")
    if len(shape) != len(strides):
        raise PickleError("a tensor of as many sizes as it has no strides")
    return TensorView(storage, offset, tuple(shape), tuple(strides), dtype)


_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
    | _BYTES.keys()
)
"""Instructions that push their argument."""

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}

_CHANGES: dict[str, Callable[[list[Any], Any], None]] = {
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _list,
    "APPEND": lambda stack, _: _extend(stack, [stack.pop()]),
    "APPENDS": lambda stack, _: _extend(stack, _since_mark(stack)),
    "ADDITEMS": lambda stack, _: _extend(stack, _since_mark(stack)),
    "SETITEM": lambda stack, _: _set(stack, [stack.pop(-2), stack.pop()]),
    "SETITEMS": lambda stack, _: _set(stack, _since_mark(stack)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
