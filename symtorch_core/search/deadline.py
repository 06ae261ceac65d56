"""Time limits: the moments at which a search and the fronts built from it have to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self, final

_SHARE = 0.1
_ENOUGH = 3.0
_MOST = 1 / 3


def _is_not_stopped() -> bool:
    return False


@final
@dataclass(frozen=True)
class Deadline:
    """A moment at which work has to end; also over as soon as the user stops the work.

    Attributes:
        end: the moment, on the clock; infinite for none.
        clock: returns the present moment, in seconds.
        is_stopped: returns whether the user stopped the work.

    >>> Deadline.after(60.0).is_over(), Deadline.after(None).is_over()
    (False, False)
    """

    end: float = math.inf
    clock: Callable[[], float] = time.monotonic
    is_stopped: Callable[[], bool] = _is_not_stopped

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Self:
        """Return the moment some seconds from now; None for no limit."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    def seconds_left(self) -> float:
        """Return the seconds until then: negative afterwards, infinite without a limit."""
        return self.end - self.clock()

    def is_over(self) -> bool:
        """Return whether the work has to end now."""
        return self.is_stopped() or self.seconds_left() <= 0

    def earlier(self, seconds: float) -> Deadline:
        """Return a moment so many seconds earlier."""
        return replace(self, end=self.end - seconds)

    def share(self, parts: int) -> Deadline:
        """Return the end of the first of some parts, equally long, of the time left."""
        return replace(self, end=self.clock() + self.seconds_left() / parts)


NEVER: Final = Deadline()
"""No limit."""
AT_ONCE: Final = Deadline(-math.inf)
"""For work that only does what cannot be left out."""


def reserve_for_front(limit: float | None) -> float:
    """Return the seconds of a limit that a search leaves for building the front of an output.

    Three seconds are enough for most fronts. Short limits leave a third, long ones a tenth.

    >>> [reserve_for_front(limit) for limit in (1.5, 15.0, 60.0)]
    [0.5, 3.0, 6.0]
    """
    return 0.0 if limit is None else max(_SHARE * limit, min(_MOST * limit, _ENOUGH))
