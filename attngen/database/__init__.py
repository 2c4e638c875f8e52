"""What was tried on which GPU, kept and looked up.

open_database     the user's database, or any SQLAlchemy URL
Database          record, lookup, best, trials; export, import_text, merge, prune
Trial, Choice     the values that go in and come out
Versions          the software of a measurement
read_tunings      an exported file as trials, strictly checked
"""

from attngen.database.store import Database, best_of_each, open_database
from attngen.database.text import read_tunings, write_tunings
from attngen.database.trial import Choice, Status, Trial
from attngen.database.versions import Versions, current_versions

__all__ = [
    "Choice",
    "Database",
    "Status",
    "Trial",
    "Versions",
    "best_of_each",
    "current_versions",
    "open_database",
    "read_tunings",
    "write_tunings",
]
