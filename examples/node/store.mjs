// The records of the examples, in SQLite. Use your own database in its place. Consumers on several hosts need
// one that all of them can reach. `work` has to write to the same database, so that one transaction covers
// both.
import { DatabaseSync } from "node:sqlite";

const TABLES = `BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, chats INTEGER, is_whole INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS done (run_id TEXT, key TEXT, PRIMARY KEY (run_id, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS worked (run_id TEXT, chat_id TEXT);
CREATE TABLE IF NOT EXISTS whole (run_id TEXT, chats INTEGER);
COMMIT;`;

export class Store {
  #statements = new Map();

  constructor(path) {
    this.db = new DatabaseSync(path, { timeout: 60_000 });
    this.db.exec(TABLES);
  }

  // Runs `steps` in a transaction. They are synchronous, so that nothing else runs in between.
  transaction(steps) {
    // Lock at once instead of at the first write, so that reads see the writes of other consumers.
    this.db.exec("BEGIN IMMEDIATE");
    try {
      steps();
      this.db.exec("COMMIT");
    } catch (error) {
      this.db.exec("ROLLBACK");
      throw error;
    }
  }

  // Returns the number of changed rows.
  run(sql, ...values) {
    return this.#statement(sql).run(...values).changes;
  }

  // Records a run.
  hasRun(runId) {
    this.run("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", runId);
  }

  // Records a key. Returns whether it is new.
  remember(runId, key) {
    return this.run("INSERT OR IGNORE INTO done VALUES (?, ?)", runId, key) === 1;
  }

  count(runId) {
    return this.#statement("SELECT count(*) AS count FROM done WHERE run_id = ?").get(runId).count;
  }

  // Records the number of chats of a run.
  expect(runId, chats) {
    this.run("UPDATE runs SET chats = ? WHERE run_id = ?", chats, runId);
  }

  // Returns the number of chats of a run, or null or undefined if it is unknown or the run is already whole.
  expected(runId) {
    return this.#statement("SELECT chats FROM runs WHERE run_id = ? AND NOT is_whole").get(runId)?.chats;
  }

  unfinished() {
    return this.#statement("SELECT run_id FROM runs WHERE NOT is_whole").all().map((row) => row.run_id);
  }

  // Marks a run as whole. Returns whether it was not marked before.
  closeRun(runId) {
    return this.run("UPDATE runs SET is_whole = 1 WHERE run_id = ? AND NOT is_whole", runId) === 1;
  }

  #statement(sql) {
    if (!this.#statements.has(sql)) this.#statements.set(sql, this.db.prepare(sql));
    return this.#statements.get(sql);
  }
}
