"""Downloads with a checksum and a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hesspipe.files import atomic_path


def download(addresses: Sequence[str], checksum: str, path: str | Path, *, advice: str) -> None:
    """Download a file from the first address that serves it with the right checksum.

    A file that already exists with this checksum is kept, and no connection is made.

    Parameters
    ----------
    addresses : sequence of str
        Tried in order.
    checksum : str
        Algorithm and hash, as pooch writes them: "sha256:...".
    path : path
        Its folder is created if necessary.
    advice : str
        What to do instead of downloading; ends the message.

    Raises
    ------
    FileNotFoundError
        If no address serves the file; no partial file is left.
    """
    import pooch
    import requests

    path, failures = Path(path), []
    if path.is_file() and _has(path, checksum):
        return
    fetch = pooch.HTTPDownloader(progressbar=True)
    for address in addresses:
        try:
            with atomic_path(path) as temporary:
                fetch(address, temporary, None)
                if not _has(temporary, checksum):
                    raise ValueError("another checksum")
        except requests.HTTPError as error:
            status = "an unknown status"
            if error.response is not None:
                status = f"status {error.response.status_code}"
                error.response.close()  # its connection would stay open as long as the error
            failures.append(f"{address} answers with {status}")
        except requests.RequestException as error:
            failures.append(f"{address} cannot be reached, {type(error).__name__}")
        except ValueError:
            failures.append(f"{address} serves a file with another checksum")
        else:
            return
    raise FileNotFoundError(
        f"{path} could not be downloaded ({'; '.join(failures)}); run the same command again with "
        f"a network connection, {advice}"
    )


def _has(path: Path, checksum: str) -> bool:
    import pooch

    algorithm, _, expected = checksum.partition(":")
    found: str = pooch.file_hash(str(path), alg=algorithm)
    return found == expected
