"""The tokens of `farm login`: one file for each address, in the user's `~/.config/farm/tokens`, closed to others."""

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from farm.client.http import check_token, check_url
from farm.errors import BadRequest, NotLoggedIn


def read_token(url: str, token_file: str | Path | None = None) -> str:
    """The token of the file, or else the kept one of this address. Raises NotLoggedIn, and BadRequest for an address
    that is none.
    """
    path = Path(token_file).expanduser() if token_file is not None else _path(url)
    try:
        return check_token(path.read_text())
    except FileNotFoundError as error:
        if token_file is None:
            raise NotLoggedIn(
                f"there is no token for {check_url(url)}; `farm login {check_url(url)}` keeps one"
            ) from error
        raise NotLoggedIn(f"the token file {str(path)!r} does not exist; `farm token new` prints a token") from error
    except (OSError, UnicodeDecodeError) as error:
        raise NotLoggedIn(f"the token file {str(path)!r} cannot be read: {error}; make it readable for you") from error


def keep_token(url: str, token: str) -> Path:
    """Write the token of this address, in one step. Returns its file. Raises BadRequest."""
    path = _path(url)
    new = path.with_name(f".{path.name[-200:]}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token}\n")
        new.replace(path)
    except OSError as error:
        raise BadRequest(f"the token cannot be kept in {str(path)!r}: {error.strerror}; give --token-file") from error
    finally:
        with suppress(OSError):
            new.unlink()
    return path


def forget_token(url: str) -> bool:
    """Delete the kept token of this address; False if there was none."""
    path = _path(url)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadRequest(f"the token in {str(path)!r} cannot be deleted: {error.strerror}") from error
    return True


def _path(url: str) -> Path:
    return Path.home() / ".config/farm/tokens" / quote(check_url(url), safe="")
