"""A pristine PostgreSQL server for every test.

pytest finds the fixtures `sandboxed_db` and `sandboxed_db_url` by itself. Everything else calls `start`:

    import sandboxed_db

    with sandboxed_db.start(migrations="migrations") as db:
        psycopg.connect(db.url)
"""

from ._errors import SandboxError
from ._sandbox import Kept, Sandbox, Stopped, start
from ._snapshot import Prepare

__all__ = ["Kept", "Prepare", "Sandbox", "SandboxError", "Stopped", "start"]
