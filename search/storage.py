"""Opening the Optuna storage a study lives in."""

from __future__ import annotations

import random
import re
import sqlite3
import time
import warnings
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url

from parefront.errors import StorageError, StorageUrlError, StorageVersionError
from parefront.search.place import scrubbed
from parefront.search.sqlite_file import check_storage

HOME = Path(".parefront")
"""Folder of the default storage, of artifacts and of baselines."""
GRPC_PORT = 13000
"""Where a storage is served if nothing else is said; Optuna's own choice."""
_EXTRAS = {"grpc": "grpc", "psycopg": "postgresql"}
"""What of parefront installs a package that a storage needs."""
_DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}
"""Packages of drivers of databases, where their names are not those of their modules."""
_MADE_TWICE = ("already exists", "duplicate key", "UNIQUE constraint failed")
"""What PostgreSQL and SQLite say to the second of two that make the tables at once."""
_TRIES = 8
"""Two launches that make the tables of a new database at once disturb each other this often."""
_PSYCOPG = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Seconds, and milliseconds, after which a server that went silent is known to be gone: without
them a query to a machine that lost its power waits for a quarter of an hour
(https://www.postgresql.org/docs/current/libpq-connect.html)."""


def default_url() -> str:
    """The SQLite file under `.parefront/` in the current folder."""
    return f"sqlite:///{HOME / 'studies.db'}"


def url_of(given: str | None) -> str:
    """The URL of a storage that was given, or the default; an empty one is none, and refused."""
    return default_url() if given is None else given


def home_of(url: str) -> Path:
    """The folder that holds the artifacts of the studies in a storage.

    It is the folder of a SQLite file, and `.parefront/` in the current folder for a server.
    """
    path = _sqlite_path(url)
    return path.parent if path is not None else HOME


def kind_of(url: str) -> str:
    """What a storage is: `"sqlite"`, `"postgresql"`, `"grpc"`, or another of SQLAlchemy's.

    Raises:
        StorageUrlError: If it is no URL.
    """
    return _parsed(url).get_backend_name()


def shown(url: str) -> str:
    """A URL, or what was meant as one, as it may be shown: without its password."""
    try:
        text = _parsed(url).render_as_string(hide_password=True)
    except StorageError:
        return _scrubbed(url)
    # What is behind a further '@' was meant as part of the password.
    text = re.sub(r":\*\*\*@.*(@|%40)", ":***@", text, flags=re.DOTALL)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", text)


def shown_study(given: str) -> str:
    """A study as it is named beside others, `name` or `name@url`, without a password."""
    name, at, url = given.partition("@")
    return f"{name}@{shown(url)}" if at else name


def without_secrets(url: str) -> str:
    """A URL as others may have it who do not open the storage: it has the same `home_of`."""
    parsed = _parsed(url)  # options of a database may have its password too
    kept = URL.create(parsed.drivername, None, None, parsed.host, parsed.port, parsed.database)
    return kept.render_as_string()


def address_of(url: str) -> str:
    """Host and port of a storage that is served over gRPC."""
    parsed = _parsed(url)
    host = parsed.host or "localhost"
    return f"{f'[{host}]' if ':' in host else host}:{parsed.port or GRPC_PORT}"


def connecting(url: str) -> tuple[URL, dict[str, Any]]:
    """The URL of a database with the driver that is used, and options of its connections.

    Raises:
        StorageError: If the driver is not installed.
    """
    parsed = _parsed(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        return parsed, {}
    _need("psycopg", url)
    return parsed, {key: value for key, value in _PSYCOPG.items() if key not in parsed.query}


def open_storage(url: str, *, create: bool = True, pool: int | None = None) -> BaseStorage:
    """Opens a storage.

    SQLite files are used in WAL mode: readers and one writer do not block each other, and a
    transaction costs no `fsync`. A killed process loses nothing that was told; only a crash of the
    whole machine can lose the last moments (https://www.sqlite.org/wal.html). A file that is not to
    be made is left in the mode it is in.

    Args:
        url: `grpc://host:port` for one that `parefront serve-storage` serves, or any URL that
            Optuna's `RDBStorage` takes.
        create: Whether a missing SQLite file is made, and one without studies made a storage.
        pool: How many threads use it at once, where they are many.

    Raises:
        StorageUrlError: If the URL cannot be one of a storage.
        StorageError: If it cannot be opened.
        StorageVersionError: If an incompatible version of Optuna made it, or serves it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = _sqlite_path(url)
    options: dict[str, Any] = {} if pool is None else {"pool_size": pool}
    try:
        if kind_of(url) == "grpc":
            return _served(url)
        if path is None:
            parsed, arguments = connecting(url)
            # A connection that broke while it lay idle is replaced without a word.
            options |= {"connect_args": arguments, "pool_pre_ping": True}
            return _database(parsed.render_as_string(hide_password=False), options)
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            check_storage(path)
        return _database(url, {**options, "creator": lambda: _connect(path, log=create)})
    except RuntimeError as error:
        if isinstance(error, NotImplementedError) or "version" not in str(error):
            raise StorageError(f"cannot open storage {shown(url)}: {error}") from error
        raise StorageVersionError(
            f"the storage {shown(url)} was made by another version of Optuna: {error}"
        ) from error
    except sqlalchemy.exc.NoSuchModuleError:
        raise StorageUrlError(
            f"there is no kind of storage '{_parsed(url).drivername}', got '{shown(url)}'; "
            "expected sqlite:///FILE, postgresql://USER@HOST/DATABASE, grpc://HOST:PORT, or "
            "another that SQLAlchemy knows"
        ) from None
    except (
        OSError,
        ImportError,
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            module = cause.name.split(".")[0]
            raise StorageError(
                f"the storage {shown(url)} needs the package {module}; try: pip install "
                f"{_DRIVERS.get(module, module)}, or name another driver, as in DATABASE+DRIVER://"
            ) from error
        reason = str(cause).splitlines()[0]
        raise StorageError(f"cannot open storage {shown(url)}: {reason}") from error


def _database(url: str, options: dict[str, Any]) -> BaseStorage:
    left = _TRIES
    while True:
        try:
            # With a cache in front, as `optuna.load_study` has it, finished trials are read once.
            rdb = RDBStorage(url, engine_kwargs=dict(options))
            # A server is told that its connections are done with.
            weakref.finalize(rdb, rdb.engine.dispose)
            return get_storage(rdb)
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            left, text = left - 1, str(error.__cause__ or error)
            if not left or not any(each in text for each in _MADE_TWICE):
                raise
            time.sleep(random.uniform(0.05, 0.3))


def _served(url: str) -> BaseStorage:
    _need("grpc", url)
    from parefront.search.leases import check_server

    check_server(url)
    parsed = _parsed(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.GrpcStorageProxy(
            host=parsed.host or "localhost", port=parsed.port or GRPC_PORT
        )


def _need(package: str, url: str) -> None:
    if find_spec(package) is None:
        raise StorageError(
            f"the storage {shown(url)} needs the package {package}; try: "
            f"pip install 'parefront[{_EXTRAS[package]}]'"
        )


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        fits = parsed.port is None or 1 <= parsed.port <= 65535
    except sqlalchemy.exc.ArgumentError:
        raise StorageUrlError(  # whose cause is not shown: it may tell a part of the password
            f"expected a storage URL such as sqlite:///studies.db, got '{_scrubbed(url)}'"
        ) from None
    except ValueError:
        fits = False
    if not fits:
        raise StorageUrlError(
            f"expected a storage URL such as sqlite:///studies.db, got '{_scrubbed(url)}'; what "
            "comes after the ':' of its host is no port, 1 to 65535, and hidden where it may be a "
            "password"
        )
    if parsed.drivername == "postgres":  # as many services spell it
        parsed = parsed.set(drivername="postgresql")
    return parsed


def _scrubbed(text: str) -> str:
    """What cannot be read as a URL, without what may be a password in it."""
    return scrubbed(re.sub(r"^(\w[\w+.-]*://)?.*@", r"\1***@", text, flags=re.DOTALL))


def _sqlite_path(url: str) -> Path | None:
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise StorageUrlError(
            f"a study needs a storage that outlives the process, got '{shown(url)}'"
        )
    return Path(parsed.database)


def _connect(path: Path, *, log: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    if log:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
