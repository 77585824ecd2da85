"""The records of the examples, in SQLite. Use your own database in its place. Consumers on several hosts need
one that all of them can reach. `work` has to write to the same database, so that one transaction covers both."""
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
        """Commits everything or nothing."""
        with self.db:
            # Lock at once instead of at the first write, so that reads see the writes of other consumers.
            self.db.execute("BEGIN IMMEDIATE")
            yield self.db

    def has_run(self, run_id):
        """Records a run."""
        self.db.execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))

    def remember(self, run_id, key):
        """Records a key. Returns whether it is new."""
        return self.db.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", (run_id, key)).rowcount == 1

    def count(self, run_id):
        return self.db.execute("SELECT count(*) FROM done WHERE run_id = ?", (run_id,)).fetchone()[0]

    def expect(self, run_id, chats):
        """Records the number of chats of a run."""
        self.db.execute("UPDATE runs SET chats = ? WHERE run_id = ?", (chats, run_id))

    def expected(self, run_id):
        """Returns the number of chats of a run, or None if it is unknown or the run is already whole."""
        found = self.db.execute("SELECT chats FROM runs WHERE run_id = ? AND NOT is_whole", (run_id,)).fetchone()
        return found and found[0]

    def unfinished(self):
        return [run_id for (run_id,) in self.db.execute("SELECT run_id FROM runs WHERE NOT is_whole")]

    def close_run(self, run_id):
        """Marks a run as whole. Returns whether it was not marked before."""
        return self.db.execute("UPDATE runs SET is_whole = 1 WHERE run_id = ? AND NOT is_whole", (run_id,)).rowcount == 1
