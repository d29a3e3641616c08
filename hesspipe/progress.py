"""Progress bars of long computations: by default where a person watches.

Importing this module loads neither torch nor tqdm.
"""

from __future__ import annotations

from typing import Any

# Bars that nobody asked for are shown for what lasts longer.
_DELAY_SECONDS = 2.0


def bar_options(progress: bool | None) -> dict[str, Any]:
    """Return arguments of `tqdm` for a bar.

    Parameters
    ----------
    progress : bool, optional
        Whether it is shown; by default if standard error is a terminal, after two seconds.

    Examples
    --------
    >>> bar_options(False)
    {'disable': True}
    """
    if progress is None:  # tqdm then asks the stream
        return {"disable": None, "delay": _DELAY_SECONDS}
    return {"disable": not progress}
