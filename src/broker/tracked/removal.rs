//! Members that a whole list does not contain.

use super::pass::{accept_list, end_list};
use super::session::TrackedSession;
use crate::broker::BrokerError;
use crate::broker::store::{Changes, Counted, Cursor, Page, Saved};
use crate::message::LabelEvent;
use crate::state::record::{ListPass, State};
use crate::state::{Membership, Publish, Removal};

impl TrackedSession {
    /// Removes the members that the whole list does not contain, unless they are too many.
    pub(super) async fn remove_missing(&mut self) -> Result<Removal, BrokerError> {
        let (Some(membership), Some(list)) = (self.selection.membership, self.list) else {
            return Ok(Removal::Removed);
        };
        let events = self.store.take_turn().await?.events;
        self.save_note().await?;
        let (absent, members) = self.count(&list).await?;
        let run = self.stored.note.run.as_ref();
        let before = run.map_or(0, |run| run.members_before);
        // Some of them may have joined since.
        let before = before.max(absent);
        if membership.is_too_many(absent, before) {
            self.stored.note.guarded = Some(before);
            self.save_note().await?;
            return Ok(Removal::TooMany {
                absent,
                members: before,
            });
        }
        // Before the scan, which does not meet chats that events add behind it.
        accept_list(&mut self.stored.note, &list);
        self.save_note().await?;
        let mut from = Some(0);
        while let Some(cursor) = from {
            from = self.remove(cursor, &list, &membership).await?;
        }
        end_list(&mut self.stored.note);
        let counted = Some(Counted {
            members: members - absent,
            events,
        });
        let changes = Changes {
            counted,
            ..Changes::default()
        };
        let _ = self.save(changes).await?;
        Ok(Removal::Removed)
    }

    /// Counts the members that the list does not contain, and all members.
    async fn count(&mut self, list: &ListPass) -> Result<(u64, u64), BrokerError> {
        let (mut absent, mut members, mut from) = (0, 0, 0);
        loop {
            let page = self.store.unseen(list.pass, from).await?;
            members += page.members;
            let records = page.unseen.iter();
            absent += records.filter(|(_, it)| it.is_absent_from(list)).count() as u64;
            match page.next {
                Some(next) => from = next,
                None => return Ok((absent, members.max(absent))),
            }
        }
    }

    /// Removes the members in one page, and records of those that were removed long ago. Returns
    /// where the scan continues. Events wait meanwhile.
    async fn remove(
        &mut self,
        from: Cursor,
        list: &ListPass,
        membership: &Membership,
    ) -> Result<Option<Cursor>, BrokerError> {
        loop {
            self.store.take_turn().await?;
            let page = self.store.unseen(list.pass, from).await?;
            let next = page.next;
            let (changes, left) = absent_of(page, list);
            if membership.removed && membership.publish != Publish::Nothing {
                self.publish_removed(left).await?;
            }
            let removed = changes.records.len() as u64;
            if self.save(changes).await? == Saved::Done {
                self.counts.removed += removed;
                return Ok(next);
            }
        }
    }

    async fn publish_removed(&mut self, chats: Vec<String>) -> Result<(), BrokerError> {
        let (Some(run), Some(queue)) = (&self.stored.note.run, &mut self.removals) else {
            return Ok(());
        };
        let event = |chat_id: String| LabelEvent::missing_in(run.run_id, chat_id);
        let events: Vec<LabelEvent> = chats.into_iter().map(event).collect();
        if !events.is_empty() {
            queue.publish(&events).await?;
        }
        Ok(())
    }
}

/// Returns the changes for the members of a page that a list does not contain, and which of them
/// consumers know.
fn absent_of(page: Page, list: &ListPass) -> (Changes, Vec<String>) {
    let (mut changes, mut left) = (Changes::default(), Vec::new());
    for (chat_id, record) in page.unseen {
        if record.is_absent_from(list) {
            // Consumers were not told of a chat that is still new.
            if record.state == State::Member {
                left.push(chat_id.clone());
            }
            changes.records.push((chat_id, record.removed_by(list)));
            changes.joined -= 1;
        } else if record.is_outlived_by(list) {
            changes.forgotten.push(chat_id);
        }
    }
    (changes, left)
}
