"""What the examples remember, in SQLite: it stands for your own database. Consumers on several hosts need
one that all of them reach. What `work` writes is to be in the same one, so that one transaction holds both."""
import contextlib
import sqlite3

TABLES = """BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, chats INTEGER, is_whole INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS done (run_id TEXT, key TEXT, PRIMARY KEY (run_id, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS worked (run_id TEXT, chat_id TEXT);
CREATE TABLE IF NOT EXISTS whole (run_id TEXT, chats INTEGER);
COMMIT;"""


class Store:
    def __init__(self, path):
        self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.db.executescript(TABLES)

    @contextlib.contextmanager
    def transaction(self):
        """All that is done within, or nothing of it."""
        with self.db:
            # At once, and not with the first write: what is read within is then what others have left.
            self.db.execute("BEGIN IMMEDIATE")
            yield self.db

    def has_run(self, run_id):
        """Notes that there is this run."""
        self.db.execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))

    def remember(self, run_id, key):
        """Whether this is new; it is not from now on."""
        return self.db.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", (run_id, key)).rowcount == 1

    def count(self, run_id):
        return self.db.execute("SELECT count(*) FROM done WHERE run_id = ?", (run_id,)).fetchone()[0]

    def expect(self, run_id, chats):
        """Notes how many chats a run has."""
        self.db.execute("UPDATE runs SET chats = ? WHERE run_id = ?", (chats, run_id))

    def expected(self, run_id):
        """How many chats a run has; None where that is not known, or the run is whole already."""
        found = self.db.execute("SELECT chats FROM runs WHERE run_id = ? AND NOT is_whole", (run_id,)).fetchone()
        return found and found[0]

    def unfinished(self):
        return [run_id for (run_id,) in self.db.execute("SELECT run_id FROM runs WHERE NOT is_whole")]

    def close_run(self, run_id):
        """Marks a run as whole; gives whether it was not before."""
        return self.db.execute("UPDATE runs SET is_whole = 1 WHERE run_id = ? AND NOT is_whole", (run_id,)).rowcount == 1
