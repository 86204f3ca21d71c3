"""`dataclass`, `field` and `replace` as `dataclasses` has them, except that methods are compiled at their first call.

What differs, too, is in `late_methods`, which makes them.  A type checker sees the standard library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    from trimta.first_use.late_methods import dataclass, field, replace

__all__ = ["dataclass", "field", "replace"]
