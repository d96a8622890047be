"""The methods: one file each, found by its name, with its page beside it.

A method file imports ``pflbench.method`` and nothing else of this package; it knows one client. What knows of other
clients, devices, clocks or paths does not belong here.
"""

from types import ModuleType
from typing import Any

from pflbench.core.errors import BadInput
from pflbench.core.registry import Modules, only


class _Methods(Modules):
    def offered(self, module: ModuleType, name: str) -> Any:
        from pflbench.core.method import Method

        found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Method)]
        return only(found, module, BadInput(self.noun, name, "must define exactly one subclass of Method"))


METHODS = _Methods("method", __name__)
