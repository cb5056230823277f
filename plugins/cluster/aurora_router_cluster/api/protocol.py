"""The query protocol, by botocore's description of the service: parameters to values, values to XML.

No shape of the service is written down here: what an operation takes and returns, in which order, under which names,
follows from the description. A parameter's name is a path through the input's shape (``Filters.Filter.1.Name``).
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET  # it writes here, and reads nothing

from botocore.loaders import Loader  # an extra: only what serves the API imports this module
from botocore.model import OperationNotFoundError, ServiceModel
from botocore.utils import parse_timestamp
from botocore.validate import ParamValidator

from aurora_router_cluster.api.errors import ApiError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aurora_router_cluster.api.model import Operation, Shape

SERVICE = "rds"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, whatever way it is escaped."""


class Protocol:
    """The protocol of one service.

    Args:
        service: its name in botocore.
    """

    def __init__(self, service: str = SERVICE) -> None:
        self.model: Any = ServiceModel(Loader().load_service_model(service, "service-2"), service)

    def operation(self, name: str | None, version: str | None) -> Operation:
        """The operation that a request names.

        Raises:
            ApiError: there is none of that name in that version.
        """
        if not name:
            raise ApiError("MissingAction", "The request must contain the parameter Action")
        if version is None:
            raise ApiError("MissingParameter", "The request must contain the parameter Version")
        try:
            if version == self.model.api_version:
                found: Operation = self.model.operation_model(name)
                return found
        except OperationNotFoundError:
            pass
        raise unknown_action(name, version)

    # -- in ------------------------------------------------------------------------------------------------

    def parse(self, operation: Operation, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The input of an operation; parameters that it does not have are left out, as AWS does.

        Raises:
            ApiError: a required one is missing, or a value is not of its type.
        """
        shape = operation.input_shape
        found: dict[str, Any] = _parse_structure(shape, "", parameters) if shape is not None else {}
        if shape is not None:
            for name in shape.required_members:
                if name not in found:
                    raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
            report = ParamValidator().validate(found, shape)
            if report.has_errors():
                raise ApiError("InvalidParameterValue", report.generate_report())
        return found

    # -- out -----------------------------------------------------------------------------------------------

    def serialise(self, operation: Operation, output: Mapping[str, Any], request_id: str) -> bytes:
        """The answer of an operation as XML.

        Raises:
            KeyError: `output` has a member that the operation's output has not.
        """
        root = ET.Element(f"{operation.name}Response", xmlns=self.model.metadata["xmlNamespace"])
        shape = operation.output_shape
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper")
            result = ET.SubElement(root, wrapper) if wrapper else root
            _add_structure(result, shape, output)
        _add_text(ET.SubElement(root, "ResponseMetadata"), "RequestId", request_id)
        return _to_bytes(root)

    def serialise_error(self, error: ApiError, request_id: str) -> bytes:
        """An error as XML."""
        root = ET.Element("ErrorResponse", xmlns=self.model.metadata["xmlNamespace"])
        inner = ET.SubElement(root, "Error")
        _add_text(inner, "Type", "Sender" if error.status < 500 else "Receiver")
        _add_text(inner, "Code", error.code)
        _add_text(inner, "Message", error.message)
        _add_text(root, "RequestId", request_id)
        return _to_bytes(root)

    def error_of(self, fault: Fault) -> ApiError:
        """A declared error with the code and the status that its description gives it."""
        declared = self.model.shape_for(fault.shape).metadata["error"]
        return ApiError(declared["code"], fault.message, declared["httpStatusCode"])


def unknown_action(name: str, version: str) -> ApiError:
    """What AWS answers to a call that it does not know."""
    return ApiError("InvalidAction", f"Could not find operation {name} for version {version}")


def _name(shape: Shape, default: str) -> str:
    """The name of a member in parameters and elements."""
    name: str = shape.serialization.get("name", default)
    return name


def _parse(shape: Shape, path: str, parameters: Mapping[str, str]) -> Any:
    """The value of a shape below `path`; None: there is none."""
    if shape.type_name == "structure":
        return _parse_structure(shape, f"{path}.", parameters) or None
    if shape.type_name == "list":
        return _parse_list(shape, path, parameters)
    text = parameters.get(path)
    if text is None:
        return None
    try:
        return _SCALARS.get(shape.type_name, str)(text)
    except ValueError:
        raise ApiError(
            "InvalidParameterValue", f"Invalid value {text!r} for {path}: it has to be of type {shape.type_name}"
        ) from None


def _parse_structure(shape: Shape, prefix: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    if prefix and not any(name.startswith(prefix) for name in parameters):
        return {}
    found = {
        name: _parse(member, f"{prefix}{_name(member, name)}", parameters) for name, member in shape.members.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _parse_list(shape: Shape, path: str, parameters: Mapping[str, str]) -> list[Any] | None:
    """The elements in order; an empty list is sent as the path without a value."""
    where = f"{path}.{_name(shape.member, 'member')}"
    numbers = {
        int(name[len(where) + 1 :].partition(".")[0])
        for name in parameters
        if re.match(rf"{re.escape(where)}\.[0-9]{{1,6}}(\.|\Z)", name, re.ASCII)
    }
    if not numbers:
        return [] if parameters.get(path) == "" else None
    return [_parse(shape.member, f"{where}.{number}", parameters) for number in sorted(numbers)]


def _parse_boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _parse_integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        raise ValueError(text)
    return int(text)


def _parse_time(text: str) -> datetime:
    """A time, aware: one without an offset is in UTC."""
    try:
        time: datetime = parse_timestamp(text)
    except RuntimeError as error:  # of botocore, for a number that no time has
        raise ValueError(text) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "boolean": _parse_boolean, "integer": _parse_integer, "long": _parse_integer, "float": float, "double": float,
    "timestamp": _parse_time,
}  # fmt: skip


def _add(parent: ET.Element, shape: Shape, name: str, value: Any) -> None:
    """Add a value as one element."""
    if shape.type_name == "structure":
        _add_structure(ET.SubElement(parent, name), shape, value)
    elif shape.type_name == "list":
        inner = ET.SubElement(parent, name)
        for element in value:
            _add(inner, shape.member, _name(shape.member, "member"), element)
    else:
        _add_text(parent, name, _as_text(shape, value))


def _add_structure(element: ET.Element, shape: Shape, value: Mapping[str, Any]) -> None:
    if unknown := value.keys() - shape.members.keys():
        raise KeyError(f"{shape.name} has no member {', '.join(sorted(unknown))}")
    for name, member in shape.members.items():
        if value.get(name) is not None:
            _add(element, member, _name(member, name), value[name])


def _as_text(shape: Shape, value: Any) -> str:
    if shape.type_name == "boolean":
        return "true" if value else "false"
    if shape.type_name == "timestamp":
        moment: datetime = value
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _add_text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _NOT_XML.sub("\ufffd", text)


def _to_bytes(root: ET.Element) -> bytes:
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data
