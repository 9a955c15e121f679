"""A plan as a TOML file: to be read by people, changed by hand and replayed for ever.

What has its default is left out, and each fault and each operation is one line. A file that does
not make sense is refused with a reason.
"""

import tomllib
from dataclasses import MISSING, fields
from typing import Any, Final

import msgspec

from kvorum.config import NodeConfig, check_config
from kvorum.errors import SettingsInvalid
from kvorum.faults import POINTS
from kvorum.model.quorum import Durability
from kvorum.simulator.draw import KINDS
from kvorum.simulator.faults import FAULTS
from kvorum.simulator.plan import Plan, PlannedFault, PlannedWork, TablePlan

DROP: Final = "drop"


class PlanInvalid(SettingsInvalid):
    """A text that is no plan, or one that cannot be run."""


# Writing.


def write_plan(plan: Plan, comments: list[str]) -> str:
    """The file, with comments above."""
    lines = [f"# {comment}" for comment in comments]
    for name, value in _differing(plan):
        if isinstance(value, tuple) and value and not isinstance(value[0], int | str):
            lines.append(f"{name} = [")
            lines += [f"  {_inline(dict(_differing(one)))}," for one in value]
            lines.append("]")
        else:
            lines.append(f"{name} = {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _differing(thing: Any) -> list[tuple[str, Any]]:
    """The fields of a plan or of an entry that do not have their defaults."""
    found = []
    for field in fields(thing):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        value = getattr(thing, field.name)
        if value != default:
            found.append((field.name, value))
    return found


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Durability):
        return f'"{value.name.lower()}"'
    if isinstance(value, int):
        return f"{value}"
    if isinstance(value, str):
        assert value.isprintable(), value
        assert not {'"', "\\"} & set(value), value
        return f'"{value}"'
    if isinstance(value, NodeConfig):
        plain = NodeConfig()
        names = [field.name for field in msgspec.structs.fields(NodeConfig)]
        return _inline(
            {
                name: getattr(value, name)
                for name in names
                if getattr(value, name) != getattr(plain, name)
            }
        )
    assert isinstance(value, tuple), value
    return "[" + ", ".join(map(_scalar, value)) + "]"


def _inline(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name} = {_scalar(value)}" for name, value in values.items()) + "}"


# Reading.


def read_plan(text: str) -> Plan:
    """The plan that a file holds. Raises ``PlanInvalid``."""
    try:
        document = tomllib.loads(text)
        _check_names(document, Plan)
        for table in document.get("tables", ()):
            _check_names(table, TablePlan)
            table["durability"] = Durability[str(table["durability"]).upper()]
        for entry in document.get("faults", ()):
            _check_names(entry, PlannedFault)
        for entry in document.get("work", ()):
            _check_names(entry, PlannedWork)
        plan = msgspec.convert(document, Plan)
        check_config(plan.config)
    except KeyError as error:
        raise PlanInvalid(f"what is {error}?") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, SettingsInvalid) as error:
        raise PlanInvalid(str(error)) from error
    _check(plan)
    return plan


def _check_names(document: dict[str, Any], kind: type[Any]) -> None:
    known = [field.name for field in fields(kind)]
    for name in document:
        if name not in known:
            raise PlanInvalid(f"nothing is called {name!r} there; there are {', '.join(known)}")


def _check(plan: Plan) -> None:
    """What the types leave open."""
    names = [table.name for table in plan.tables]
    if not names or names[0] != "default" or len(dict.fromkeys(names)) < len(names):
        raise PlanInvalid("the first table must be the default one, and no two may have one name")
    if not 1 <= plan.n <= plan.members <= 26:
        raise PlanInvalid("n must be between 1 and the members, and these at most 26")
    for table in plan.tables:
        if not (1 <= table.r <= plan.n and 1 <= table.w <= plan.n):
            raise PlanInvalid(f"r and w of {table.name} must be between 1 and n")
    if plan.work and plan.clients < 1:
        raise PlanInvalid("somebody must do the work: clients is 0")
    if min(plan.delay, plan.disk_delay, plan.keys, plan.partitions) < 1:
        raise PlanInvalid("delay, disk_delay, keys and partitions must be above 0")
    if min(plan.message_cost, plan.unit_cost) < 0:
        raise PlanInvalid("message_cost and unit_cost must not be below 0")
    for work in plan.work:
        if work.kind not in (*KINDS, DROP) or work.table not in names:
            raise PlanInvalid(f"no client can {work.kind} in {work.table}")
    for fault in plan.faults:
        if fault.kind not in FAULTS:
            raise PlanInvalid(f"no fault is called {fault.kind}; there are {', '.join(FAULTS)}")
    for point in plan.points:
        if point not in POINTS:
            raise PlanInvalid(f"no fault point is called {point}")
