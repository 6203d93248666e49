"""Tables, and the queries on them as functions whose first argument is a session. Nothing here commits.

Importing this package declares every table: a table's file is found by itself.
"""

import importlib
import pkgutil

from models.core.base import Base

# every file: migrations, grants and exports are held against the metadata, in which no table may be missing
for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

metadata = Base.metadata

__all__ = ["metadata"]
