"""A SavedModel's meta graph, cut into functions that TensorFlow's runtime can run.

TensorFlow Serving loads a SavedModel by meta graph and signature, never by Python objects, and
runs it as a session. Here each run target (a signature, the restore op, the init op) becomes one
FunctionDef, so that it can be the body of a batch. Loading needs no TensorFlow Python layer beyond
the protocol messages and the op registry.

Two versions of a model live side by side in one runtime, so `isolate` gives every version a
resource container and function names of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import function_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from tuner.server.embedded.status import Code, ServingError

_REFERENCE_VARIABLES = frozenset({"Variable", "VariableV2", "TemporaryVariable"})
LOADER_SIGNATURES = "__saved_model_"
"""How the names of signatures begin that are for the loader, not for requests."""

_INIT_SIGNATURE = f"{LOADER_SIGNATURES}init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


@dataclass(frozen=True, slots=True)
class Feed:
    """A tensor given from outside: its name in the graph (`x:0`) and its DataType number."""

    tensor: str
    dtype: int


def read_meta_graph(directory: Path, tags: frozenset[str]) -> Any:
    """Read the MetaGraphDef with exactly these tags.

    Raises ServingError with the C++ loader's own codes and texts.
    """
    path = directory / "saved_model.pb"
    try:
        content = path.read_bytes()
    except OSError:
        raise ServingError(
            Code.NOT_FOUND,
            "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
            f"{directory}. Check that the directory exists and that you have the right "
            "permissions for accessing it.",
        ) from None
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(content)
    except DecodeError:
        raise ServingError(Code.DATA_LOSS, f"Can't parse {path} as binary proto") from None
    for meta_graph in saved_model.meta_graphs:
        if frozenset(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}. "
        "To inspect available tag-sets in the SavedModel, please use the SavedModel CLI: "
        "`saved_model_cli`",
    )


def isolate(meta_graph: Any, name: str) -> None:
    """Give the graph's resources and library functions names that no other model version has.

    Changes `meta_graph`. `name` becomes the container of all resources and the prefix of all
    functions.
    """
    library = meta_graph.graph_def.library
    renamed = {item.signature.name: f"{name}_{item.signature.name}" for item in library.function}
    for node in meta_graph.graph_def.node:
        _isolate_node(node, name, renamed)
        if "shared_name" in node.attr and not node.attr["shared_name"].s:
            # The runtime would fall back on the node's name, which inlining changes.
            node.attr["shared_name"].s = node.name.encode()
    for function in library.function:
        function.signature.name = renamed[function.signature.name]
        for node in function.node_def:
            _isolate_node(node, name, renamed)
    for gradient in library.gradient:
        gradient.function_name = renamed.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = renamed.get(gradient.gradient_func, gradient.gradient_func)


def _isolate_node(node: Any, container: str, renamed: dict[str, str]) -> None:
    node.op = renamed.get(node.op, node.op)
    op_def = _op_def(node.op)
    if op_def is not None and "container" in op_def.attributes:
        node.attr["container"].s = container.encode()
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            value.func.name = renamed.get(value.func.name, value.func.name)
        elif kind == "list":
            for function in value.list.func:
                function.name = renamed.get(function.name, function.name)


class Graph:
    """The nodes of a meta graph, from which functions are cut."""

    def __init__(self, meta_graph: Any) -> None:
        self._meta_graph = meta_graph
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._library = {
            item.signature.name: item.signature for item in meta_graph.graph_def.library.function
        }

    @property
    def signatures(self) -> dict[str, Any]:
        """All SignatureDefs by name, those of the loader's own ops included."""
        return dict(self._meta_graph.signature_def)

    @property
    def library(self) -> Sequence[Any]:
        """The FunctionDefs that the functions cut from this graph call."""
        return list(self._meta_graph.graph_def.library.function)

    @property
    def saver(self) -> tuple[str, str] | None:
        """The restore op and the tensor that takes the checkpoint's path; None: no variables."""
        saver = self._meta_graph.saver_def
        if not saver.restore_op_name:
            return None
        return saver.restore_op_name, saver.filename_tensor_name

    @property
    def init_op(self) -> str | None:
        """The node that initialises tables and the like, or None."""
        if _INIT_SIGNATURE in self._meta_graph.signature_def:
            outputs = self._meta_graph.signature_def[_INIT_SIGNATURE].outputs
            return str(outputs[_INIT_SIGNATURE].name)
        for key in _INIT_COLLECTIONS:
            if key in self._meta_graph.collection_def:
                return str(self._meta_graph.collection_def[key].node_list.value[0])
        return None

    @property
    def assets(self) -> dict[str, str]:
        """File names below `assets/`, by the tensor that takes the path."""
        return {
            asset.tensor_info.name: asset.filename for asset in self._meta_graph.asset_file_def
        }

    def cut(
        self,
        name: str,
        feeds: Sequence[Feed],
        fetches: Sequence[Feed] = (),
        targets: Iterable[str] = (),
    ) -> Any:
        """Build the FunctionDef that takes `feeds`, returns `fetches` and runs `targets`.

        As in a session, any tensor may be fed. Raises ServingError where a name is not in the
        graph or where the graph holds reference variables.
        """
        arguments = {_canonical(feed.tensor): f"tuner_in_{i}" for i, feed in enumerate(feeds)}
        targets = list(targets)
        function = function_pb2.FunctionDef()
        function.signature.name = name
        function.signature.is_stateful = True
        for feed in feeds:
            argument = arguments[_canonical(feed.tensor)]
            function.signature.input_arg.add(name=argument, type=feed.dtype)
        for index, fetch in enumerate(fetches):
            output = f"tuner_out_{index}"
            function.signature.output_arg.add(name=output, type=fetch.dtype)
            function.ret[output] = self._reference(fetch.tensor, arguments)
        for index, target in enumerate(targets):
            control = f"tuner_done_{index}"
            function.signature.control_output.append(control)
            function.control_ret[control] = _node_name(target)
        roots = [_canonical(fetch.tensor) for fetch in fetches] + targets
        for node in self._reachable(roots, arguments):
            copy = function.node_def.add()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(
                self._reference(edge, arguments) for edge in node.input if self._keeps(edge)
            )
        return function

    def unload(self, name: str) -> Any:
        """Build the FunctionDef that destroys the graph's resources: variables, tables."""
        function = function_pb2.FunctionDef()
        function.signature.name = name
        function.signature.is_stateful = True
        makers = [node for node in self._nodes.values() if _makes_resource(node)]
        for index, maker in enumerate(makers):
            handle = function.node_def.add()
            handle.CopyFrom(maker)
            handle.name = f"handle_{index}"
            destroy = function.node_def.add(name=f"destroy_{index}", op="DestroyResourceOp")
            destroy.input.append(f"{handle.name}:{self._outputs(maker)[0]}")
            destroy.attr["ignore_lookup_error"].b = True
            function.signature.control_output.append(destroy.name)
            function.control_ret[destroy.name] = destroy.name
        return function

    def reaches(self, targets: Iterable[str]) -> set[str]:
        """Name the nodes that these targets depend on."""
        return {node.name for node in self._reachable(targets, {})}

    def _reachable(self, roots: Iterable[str], fed: dict[str, str]) -> list[Any]:
        found: dict[str, Any] = {}
        waiting = list(roots)
        while waiting:
            edge = waiting.pop()
            name = _node_name(edge)
            if name in found or _canonical(edge) in fed or not self._keeps(edge):
                continue
            node = found[name] = self._node(name)
            if node.op in _REFERENCE_VARIABLES:
                raise ServingError(
                    Code.UNIMPLEMENTED,
                    f"Node '{name}' is a reference variable ({node.op}), which the embedded "
                    "server does not run; export the model with resource variables, or use "
                    "TensorFlow Serving itself",
                )
            waiting.extend(node.input)
        return list(found.values())

    def _keeps(self, edge: str) -> bool:
        """Tell whether an edge stays: waiting for a placeholder would wait for nothing."""
        return not (edge.startswith("^") and self._node(edge[1:]).op == "Placeholder")

    def _node(self, name: str) -> Any:
        try:
            return self._nodes[name]
        except KeyError:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Node '{name}' is not in the model's graph"
            ) from None

    def _reference(self, edge: str, arguments: dict[str, str]) -> str:
        """Translate a graph's edge (`name:3`) to a function's (`name:out_arg:0`)."""
        if edge.startswith("^"):
            return edge
        if argument := arguments.get(_canonical(edge)):
            return argument
        name, _, index = edge.partition(":")
        node = self._node(name)
        return f"{name}:{self._outputs(node)[int(index or 0)]}"

    def _outputs(self, node: Any) -> list[str]:
        """List a node's outputs as `arg:index`, in the order the graph numbers them."""
        signature = self._library.get(node.op)
        if signature is None:
            op = _op_def(node.op)
            if op is None:
                raise ServingError(
                    Code.NOT_FOUND,
                    f"Op type not registered '{node.op}' in binary running on this machine.",
                )
            signature = op.definition
        return [
            f"{argument.name}:{index}"
            for argument in signature.output_arg
            for index in range(_length(argument, node))
        ]


@dataclass(frozen=True, slots=True)
class _Op:
    definition: Any
    attributes: frozenset[str]


@cache
def _op_def(name: str) -> _Op | None:
    definition = op_def_registry.get(name)
    if definition is None:
        return None
    return _Op(definition, frozenset(attribute.name for attribute in definition.attr))


def _length(argument: Any, node: Any) -> int:
    """Count the tensors of one output argument, which may be a list."""
    if argument.number_attr:
        return int(node.attr[argument.number_attr].i)
    if argument.type_list_attr:
        return len(node.attr[argument.type_list_attr].list.type)
    return 1


def _makes_resource(node: Any) -> bool:
    """Tell whether a node makes a shared resource out of nothing."""
    op = _op_def(node.op)
    if op is None or "shared_name" not in node.attr or node.input:
        return False
    return [item.type for item in op.definition.output_arg] == [types_pb2.DT_RESOURCE]


def _canonical(tensor: str) -> str:
    return tensor if ":" in tensor or tensor.startswith("^") else f"{tensor}:0"


def _node_name(edge: str) -> str:
    return edge.lstrip("^").partition(":")[0]
