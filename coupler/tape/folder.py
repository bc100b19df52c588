"""The folder of a run's tapes: which operators have one, and which files belong to it."""

import re
from pathlib import Path

from coupler.errors import CouplerError, did_you_mean

_NAME = re.compile(r"(.+)-(\d{5,})\.h5")


class TapeFolder:
    """Names of segments, ``OPERATOR-00001.h5`` and so on.

    Parameters
    ----------
    path : Path
        A run folder, or the folder ``tape`` in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "tape" if (path / "tape").is_dir() else path

    @property
    def operators(self) -> list[str]:
        """The names of the operators that have a tape here, sorted."""
        return sorted(self._numbers())

    def segment(self, operator: str, number: int) -> Path:
        """Give the path of an operator's segment; numbers begin with 1."""
        return self.path / f"{operator}-{number:05d}.h5"

    def last(self, operator: str) -> int:
        """Give the number of an operator's last segment, 0 if there is none."""
        return max(self._numbers().get(operator, ()), default=0)

    def segments(self, operator: str) -> list[Path]:
        """Give the paths of an operator's segments in order.

        Raises
        ------
        CouplerError
            If there is none, or one is missing among them.

        Collective: no.
        """
        present = self._numbers()
        if operator not in present:
            raise CouplerError(
                f'There is no tape of "{operator}" in {self.path}.{did_you_mean(operator, present)} A run writes tapes '
                'with output.tape = true in controller.mode = "physics" or "shadow".'
            )
        paths = [self.segment(operator, number) for number in range(1, self.last(operator) + 1)]
        for path in paths:
            if not path.is_file():
                raise CouplerError(
                    f"The tape's segment {path} is missing while later ones are there, and without it the tape would "
                    "silently be that of another run. Restore it, or move the later ones away to read what was before."
                )
        return paths

    def only(self) -> str:
        """Give the name of the one operator that has a tape here.

        Raises
        ------
        CouplerError
            If there is none, or several.

        Collective: no.
        """
        operators = self.operators
        if len(operators) == 1:
            return operators[0]
        found = f"tapes of {', '.join(operators)}" if operators else "no tape"
        advice = f'say which, for example "{operators[0]}"' if operators else "check the path"
        raise CouplerError(f"{self.path} holds {found}, where one was asked for without a name: {advice}.")

    def _numbers(self) -> dict[str, list[int]]:
        """Give the numbers of all segments by operator."""
        numbers: dict[str, list[int]] = {}
        for file in self.path.iterdir() if self.path.is_dir() else ():
            if (match := _NAME.fullmatch(file.name)) is not None:
                numbers.setdefault(match[1], []).append(int(match[2]))
        return numbers


def operators_on_tape(path: Path) -> list[str]:
    """Give the names of the operators that have a tape in a run folder, sorted. Collective: no."""
    return TapeFolder(path).operators
