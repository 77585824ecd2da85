// What the examples remember, in SQLite: it stands for your own database. Consumers on several hosts need one
// that all of them reach. What `work` writes is to be in the same one, so that one transaction holds both.
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

  // All that `steps` does, or nothing of it. They are synchronous: nothing else may come between.
  transaction(steps) {
    // At once, and not with the first write: what is read within is then what others have left.
    this.db.exec("BEGIN IMMEDIATE");
    try {
      steps();
      this.db.exec("COMMIT");
    } catch (error) {
      this.db.exec("ROLLBACK");
      throw error;
    }
  }

  // Gives how many rows were changed.
  run(sql, ...values) {
    return this.#statement(sql).run(...values).changes;
  }

  // Notes that there is this run.
  hasRun(runId) {
    this.run("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", runId);
  }

  // Whether this is new; it is not from now on.
  remember(runId, key) {
    return this.run("INSERT OR IGNORE INTO done VALUES (?, ?)", runId, key) === 1;
  }

  count(runId) {
    return this.#statement("SELECT count(*) AS count FROM done WHERE run_id = ?").get(runId).count;
  }

  // Notes how many chats a run has.
  expect(runId, chats) {
    this.run("UPDATE runs SET chats = ? WHERE run_id = ?", chats, runId);
  }

  // How many chats a run has; null or undefined where that is not known, or the run is whole already.
  expected(runId) {
    return this.#statement("SELECT chats FROM runs WHERE run_id = ? AND NOT is_whole").get(runId)?.chats;
  }

  unfinished() {
    return this.#statement("SELECT run_id FROM runs WHERE NOT is_whole").all().map((row) => row.run_id);
  }

  // Marks a run as whole; gives whether it was not before.
  closeRun(runId) {
    return this.run("UPDATE runs SET is_whole = 1 WHERE run_id = ? AND NOT is_whole", runId) === 1;
  }

  #statement(sql) {
    if (!this.#statements.has(sql)) this.#statements.set(sql, this.db.prepare(sql));
    return this.#statements.get(sql);
  }
}
