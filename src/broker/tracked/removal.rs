//! Members that a whole list does not contain.

use super::session::TrackedSession;
use crate::broker::BrokerError;
use crate::broker::store::{Changes, Page};
use crate::message::LabelEvent;
use crate::state::record::{ListPass, State};
use crate::state::{Membership, Publish, Removal};

impl TrackedSession {
    /// Removes the members that the whole list does not contain, unless they are too many.
    pub(super) async fn remove_missing(&mut self) -> Result<Removal, BrokerError> {
        let (Some(membership), Some(list)) = (self.selection.membership, self.list) else {
            return Ok(Removal::Removed);
        };
        let (absent, members) = self.count(&list).await?;
        let run = self.stored.note.run.as_ref();
        let before = run.map_or(0, |run| run.members_before);
        // Some of them may have joined since.
        let before = before.max(absent);
        if membership.is_too_many(absent, before) {
            self.stored.note.guarded = Some(before);
            self.save(Changes::default()).await?;
            return Ok(Removal::TooMany {
                absent,
                members: before,
            });
        }
        let mut from = 0;
        loop {
            let page = self.store.unseen(list.pass, from).await?;
            let next = page.next;
            self.remove(page, &list, &membership).await?;
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        super::pass::end_list(&mut self.stored.note, members - absent);
        self.save(Changes::default()).await?;
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

    /// Removes members, and records of those that were removed long ago.
    async fn remove(
        &mut self,
        page: Page,
        list: &ListPass,
        membership: &Membership,
    ) -> Result<(), BrokerError> {
        let (mut changes, mut told) = (Changes::default(), Vec::new());
        for (chat_id, record) in page.unseen {
            if record.is_absent_from(list) {
                // Consumers were not told of a chat that is still new.
                if record.state == State::Member {
                    told.push(chat_id.clone());
                }
                changes.records.push((chat_id, record.removed_by(list)));
            } else if record.is_outlived_by(list) {
                changes.forgotten.push(chat_id);
            }
        }
        if changes.records.is_empty() && changes.forgotten.is_empty() {
            return Ok(());
        }
        if membership.removed && membership.publish != Publish::Nothing {
            self.publish_removed(told).await?;
        }
        let removed = changes.records.len() as u64;
        self.stored.note.members = self.stored.note.members.saturating_sub(removed);
        self.save(changes).await?;
        self.counts.removed += removed;
        Ok(())
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
