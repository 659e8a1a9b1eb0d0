"""One SQLite file shared by the processes of one machine: opened with care, written by group commit.

What makes a write durable and cheap: WAL with `synchronous=FULL`, one writing connection per process on a thread of its own,
and one transaction for all that waits (an fsync costs 0.2 to 5 ms, whatever it carries). Reads run on the event loop, on a
connection of their own: WAL readers wait for no writer, and a read here is one key or one bounded batch (a thread hop would
cost four times the read).
"""

from stagecast.sqlite.backlog import Work
from stagecast.sqlite.database import Database, Upkeep, rows
from stagecast.sqlite.file import DatabaseError, Format, check_version, library_version, path_of

__all__ = [
    "Database",
    "DatabaseError",
    "Format",
    "Upkeep",
    "Work",
    "check_version",
    "library_version",
    "path_of",
    "rows",
]
