"""Which region of a label is wanted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Selection:
    """Wanted region by name and by value; None leaves the choice to the label, which must then be unambiguous.

    `roi` is compared without case, as a whole name, then as a shell pattern (`GTV*`), then as a regular expression
    found anywhere in the name; the first way that fits any name decides.
    """

    roi: str | None = None
    label_value: int | None = None

    def choose(self, names: Sequence[str]) -> list[str]:
        """The wanted ones of `names`; all of them without `roi`."""
        if self.roi is None:
            return list(names)
        pattern = self.roi.casefold()
        for fits in (pattern.__eq__, lambda name: fnmatchcase(name, pattern), self._found):
            chosen = [name for name in names if fits(name.strip().casefold())]
            if chosen:
                return chosen
        return []

    def _found(self, name: str) -> bool:
        try:
            return re.search(self.roi or "", name, re.IGNORECASE) is not None
        except re.error:
            return False
