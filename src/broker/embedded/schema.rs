//! Tables of the file. Their comments are part of the file, for whoever opens it with other tools.

/// Marks the file as labelcast's: "lcst" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x6c63_7374;
/// Version of the tables.
pub(super) const VERSION: i32 = 2;

/// Changes of the tables since version 1, and what the numbers of members are.
pub(super) const FROM_VERSION_1: &str = "
ALTER TABLE lists ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lists ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lists ADD COLUMN tracked INTEGER NOT NULL DEFAULT 0;
UPDATE lists SET members = coalesce(json_extract(note, '$.members'), 0) WHERE json_valid(note);
";
/// The tables that version 1 does not have in this form. The counts of labels, which it had, are
/// counted anew.
pub(super) const SINCE_VERSION_2: &str = "
DROP TABLE IF EXISTS labels;
CREATE TABLE labels (
  instance_id TEXT NOT NULL,
  label_id TEXT NOT NULL,
  name TEXT,
  color TEXT, -- As the API writes it.
  chats INTEGER, -- NULL: not counted yet.
  counted_at INTEGER NOT NULL, -- Milliseconds since 1970.
  expires_at INTEGER, -- Seconds since 1970. NULL: never.
  deleted_at INTEGER, -- When the label was deleted, in milliseconds since 1970. NULL: it was not.
  PRIMARY KEY (instance_id, label_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
  -- The last run of each label.
  instance_id TEXT NOT NULL,
  label_id TEXT NOT NULL,
  run TEXT NOT NULL, -- JSON
  expires_at INTEGER, -- Seconds since 1970. NULL: never.
  PRIMARY KEY (instance_id, label_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
  -- Events that were applied, so that a repeat is known.
  list INTEGER NOT NULL, -- The row of this number in lists.
  event BLOB NOT NULL, -- XXH3-128 of the event's id, which may contain a chat id.
  expires_at INTEGER NOT NULL, -- Seconds since 1970.
  PRIMARY KEY (list, event)
) STRICT, WITHOUT ROWID;
";

/// The tables that each file has.
pub(super) const TABLES: &str = "
CREATE TABLE lists (
  -- One row for each queue, label and account, without ids of chats. It outlives the members.
  list INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  label_id TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  note TEXT NOT NULL DEFAULT '{}', -- JSON
  expires_at INTEGER, -- When the members expire, in seconds since 1970. NULL: never.
  members INTEGER NOT NULL DEFAULT 0, -- Number of members.
  events INTEGER NOT NULL DEFAULT 0, -- How often events have changed the members.
  tracked INTEGER NOT NULL DEFAULT 0, -- 1: there were events, so each run keeps the members.
  UNIQUE (queue, label_id, instance_id)
) STRICT;
CREATE TABLE queues (
  queue_id INTEGER PRIMARY KEY,
  queue TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE publications (
  -- When a chat was last published to a queue, by the run of any label.
  publication INTEGER PRIMARY KEY,
  queue_id INTEGER NOT NULL,
  chat_id TEXT NOT NULL,
  published_at INTEGER NOT NULL, -- Seconds since 1970.
  expires_at INTEGER, -- Seconds since 1970. NULL: never.
  UNIQUE (queue_id, chat_id)
) STRICT;
";

/// Returns the table for the members of a list.
pub(super) fn members_table(list: i64) -> String {
    format!(
        "
CREATE TABLE members_{list} (
  -- Members, and those that left lately, of the row of this number in lists.
  member INTEGER PRIMARY KEY,
  chat_id TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL, -- 0: member, 1: member that was not published yet, 2: has left, 3: the token of the set.
  source INTEGER NOT NULL, -- What as_of comes from. 0: a list, 1: an event.
  as_of INTEGER NOT NULL, -- Milliseconds since 1970.
  since INTEGER NOT NULL, -- When the membership began, in seconds since 1970.
  seen INTEGER NOT NULL, -- The last pass whose list contained the chat.
  published INTEGER NOT NULL -- The last pass in which the chat was published.
) STRICT;
"
    )
}
