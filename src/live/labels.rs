//! The labels that are followed, and what is known of each.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::inbound::LabelInfo;
use super::overview::{LabelView, LastRun, Sample};
use super::trend::add_sample;
use crate::api::Label;
use crate::broker::{MemberCount, QueueDepth, Target};
use crate::pipeline::{Labels, RunSettings};
use crate::state::counts::LabelCount;

/// How long the list of labels may take to leave out a label that was deleted.
const CONFIRM_WITHIN: Duration = Duration::from_secs(600);
/// Labels that are followed. Events of more labels are refused.
const MAX_LABELS: usize = 1000;

/// The followed labels, by their ids.
pub struct FollowedLabels {
    run: RunSettings,
    target_of: Box<dyn Fn(&str) -> Target + Send + Sync>,
    /// Whether a queue of a name can be published to.
    is_queue: Box<dyn Fn(&str) -> bool + Send + Sync>,
    labels: Mutex<BTreeMap<String, Followed>>,
}

/// A followed label.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// Its name, if it is known.
    pub name: Option<String>,
    /// Its colour, as the API writes it.
    pub color: Option<String>,
    /// Whether it exists at the API.
    pub presence: Presence,
    /// The last deletion that the list of labels has not confirmed in time, or has taken back.
    settled_at: Option<SystemTime>,
    /// The number of members, as last read; `None` before the first reading.
    pub members: Option<MemberCount>,
    /// When the number of members last changed.
    counted_at: Option<SystemTime>,
    depth: QueueDepth,
    last_run: Option<LastRun>,
    trend: Vec<Sample>,
}

/// Whether a label exists at the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// The list of labels has not told yet.
    #[default]
    Unknown,
    /// It is in the account's list of labels.
    Listed,
    /// A webhook reported that it was deleted then, and the list of labels is still to confirm it.
    Deleting(SystemTime),
    /// It was deleted, as a webhook has reported and the list of labels confirms.
    Deleted(SystemTime),
    /// It is not in the list of labels, and no webhook has reported that it was deleted.
    Missing,
}

/// Whether a label's event is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It is.
    Yes,
    /// It is, and the label was not known before.
    Newly,
    /// It is not: the settings name other labels.
    No,
    /// It is not: the queue of such a label cannot be published to.
    Misnamed,
    /// It is not: too many labels are followed.
    TooMany,
}

impl Followed {
    /// Whether a whole list and all events since are counted.
    pub fn is_exact(&self) -> bool {
        self.members
            .is_some_and(|members| members.listed_at.is_some())
    }

    fn is_gone(&self) -> bool {
        matches!(self.presence, Presence::Deleted(_) | Presence::Missing)
    }

    fn deleted_at(&self) -> Option<SystemTime> {
        match self.presence {
            Presence::Deleting(at) | Presence::Deleted(at) => Some(at),
            Presence::Unknown | Presence::Listed | Presence::Missing => None,
        }
    }

    /// Returns the label without a count, to store it.
    fn described(&self, label_id: &str) -> LabelCount {
        LabelCount {
            label_id: label_id.to_owned(),
            label_name: self.name.clone(),
            color_hex: self.color.clone(),
            chats: None,
            counted_at: SystemTime::now(),
            deleted_at: self.deleted_at(),
        }
    }
}

impl FollowedLabels {
    /// Follows the labels of the settings. `target_of` names the queue of a label, and
    /// `is_queue` tells whether the broker takes such a name.
    pub fn new(
        run: RunSettings,
        target_of: Box<dyn Fn(&str) -> Target + Send + Sync>,
        is_queue: Box<dyn Fn(&str) -> bool + Send + Sync>,
    ) -> Self {
        let named = match &run.labels {
            Labels::All => &[][..],
            Labels::These(named) => named,
        };
        let named = named.iter().filter(|label_id| run.is_for(label_id));
        let labels = named.map(|label_id| (label_id.clone(), Followed::default()));
        Self {
            labels: Mutex::new(labels.collect()),
            run,
            target_of,
            is_queue,
        }
    }

    /// The scope of a label.
    pub fn target(&self, label_id: &str) -> Target {
        (self.target_of)(label_id)
    }

    /// Whether events of a label are accepted. If they are, the label is followed from now on.
    pub fn follow(&self, label_id: &str) -> Follows {
        if !self.run.is_asked_for(label_id) {
            return Follows::No;
        }
        if !(self.is_queue)(&self.target(label_id).queue) {
            return Follows::Misnamed;
        }
        let mut labels = self.lock();
        match labels.contains_key(label_id) {
            true => Follows::Yes,
            false if labels.len() >= MAX_LABELS => Follows::TooMany,
            false => {
                labels.insert(label_id.to_owned(), Followed::default());
                Follows::Newly
            }
        }
    }

    /// Takes the account's whole list of labels. Returns those with a new name or colour, to store
    /// them.
    pub fn take_list(&self, listed: &[Label]) -> Vec<LabelCount> {
        let mut labels = self.lock();
        let mut changed = Vec::new();
        for label in listed
            .iter()
            .filter(|label| self.run.is_asked_for(&label.id))
        {
            let followed = labels.entry(label.id.clone()).or_default();
            let before = (followed.name.clone(), followed.color.clone());
            followed.name = label.name.clone().or(followed.name.take());
            followed.color = label.color.clone().or(followed.color.take());
            if before != (followed.name.clone(), followed.color.clone()) {
                changed.push(LabelCount {
                    deleted_at: None,
                    ..followed.described(&label.id)
                });
            }
        }
        for (label_id, followed) in labels.iter_mut() {
            let is_listed = listed.iter().any(|label| label.id == *label_id);
            let (presence, settled) = followed.presence.after_list(is_listed, SystemTime::now());
            if presence == Presence::Missing && followed.presence != Presence::Missing {
                warn!(label_id, "label is not in the account's list of labels");
            }
            followed.presence = presence;
            followed.settled_at = settled.or(followed.settled_at);
        }
        changed
    }

    /// Takes what is stored, also by other processes: names, colours and deletions that they were
    /// told of. Returns whether a deletion is news.
    pub fn take_stored(&self, counts: Vec<LabelCount>) -> bool {
        let mut labels = self.lock();
        let mut is_news = false;
        for count in counts {
            let is_known = labels.contains_key(&count.label_id);
            let is_queue = (self.is_queue)(&self.target(&count.label_id).queue);
            let is_full = !is_known && labels.len() >= MAX_LABELS;
            if !self.run.is_asked_for(&count.label_id) || !is_queue || is_full {
                continue;
            }
            let followed = labels.entry(count.label_id).or_default();
            followed.name = count.label_name.or(followed.name.take());
            followed.color = count.color_hex.or(followed.color.take());
            let is_later = |at: &SystemTime| followed.settled_at.is_none_or(|it| *at > it);
            if let Some(at) = count.deleted_at.filter(is_later) {
                let presence = followed.presence.after_report(at);
                is_news |= presence != followed.presence;
                followed.presence = presence;
            }
        }
        is_news
    }

    /// Takes the last run of each label.
    pub fn take_runs(&self, runs: Vec<LastRun>) {
        let mut labels = self.lock();
        for run in runs {
            if let Some(followed) = labels.get_mut(&run.label_id) {
                followed.last_run = Some(run);
            }
        }
    }

    /// Takes a label's new name and colour. Returns the label, to store it.
    pub fn change(&self, info: LabelInfo) -> LabelCount {
        let mut labels = self.lock();
        let followed = labels.entry(info.label_id.clone()).or_default();
        followed.name = info.label_name.or(followed.name.take());
        followed.color = info.color_hex.or(followed.color.take());
        followed.described(&info.label_id)
    }

    /// Notes that a label was deleted, for the list of labels to confirm. Returns the label, to
    /// store it.
    pub fn report_deleted(&self, label_id: &str, at: SystemTime) -> LabelCount {
        let mut labels = self.lock();
        let followed = labels.entry(label_id.to_owned()).or_default();
        followed.presence = followed.presence.after_report(at);
        followed.described(label_id)
    }

    /// Takes the members of labels. Returns the labels whose count has changed, to store them.
    pub fn take_members(
        &self,
        counts: impl Iterator<Item = (String, MemberCount)>,
        now: SystemTime,
    ) -> Vec<LabelCount> {
        let mut labels = self.lock();
        let mut changed = Vec::new();
        for (label_id, count) in counts {
            let Some(followed) = labels.get_mut(&label_id) else {
                continue;
            };
            if followed.members == Some(count) {
                continue;
            }
            followed.members = Some(count);
            followed.counted_at = Some(now);
            if followed.is_exact() {
                let chats = count.members;
                add_sample(&mut followed.trend, Sample { at: now, chats });
                changed.push(LabelCount {
                    label_id,
                    label_name: None,
                    color_hex: None,
                    chats: Some(chats),
                    counted_at: now,
                    deleted_at: None,
                });
            }
        }
        changed
    }

    /// Takes the depths of queues.
    pub fn take_depths(&self, depths: impl Iterator<Item = (String, QueueDepth)>) {
        let mut labels = self.lock();
        for (label_id, depth) in depths {
            if let Some(followed) = labels.get_mut(&label_id) {
                followed.depth = depth;
            }
        }
    }

    /// A label, with its name and colour as far as they are known.
    pub fn label(&self, label_id: &str) -> Label {
        let labels = self.lock();
        let followed = labels.get(label_id);
        Label {
            id: label_id.to_owned(),
            name: followed.and_then(|it| it.name.clone()),
            color: followed.and_then(|it| it.color.clone()),
        }
    }

    /// Ids of all followed labels.
    pub fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A copy of all followed labels.
    pub fn all(&self) -> Vec<(String, Followed)> {
        let labels = self.lock();
        let all = labels
            .iter()
            .map(|(id, followed)| (id.clone(), followed.clone()));
        all.collect()
    }

    /// Returns the labels for the overview, in the order of their ids.
    pub fn views(&self) -> Vec<LabelView> {
        let labels = self.lock();
        let view = |(label_id, followed): (&String, &Followed)| LabelView {
            label_id: label_id.clone(),
            label_name: followed.name.clone(),
            color_hex: followed.color.clone(),
            chats: followed
                .members
                .filter(|_| followed.is_exact())
                .map(|it| it.members),
            counted_at: followed.counted_at.filter(|_| followed.is_exact()),
            is_exact: followed.is_exact(),
            is_deleted: followed.is_gone(),
            queue: self.target(label_id).queue,
            messages: followed.depth.messages,
            lag: followed.depth.lag,
            last_run: followed.last_run.clone(),
            trend: followed.trend.clone(),
        };
        labels.iter().map(view).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Followed>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// After the whole list of labels was read. Also returns the deletion that this settles as not
    /// confirmed, or as taken back.
    fn after_list(self, is_listed: bool, now: SystemTime) -> (Self, Option<SystemTime>) {
        let is_recent = |at| now.duration_since(at).unwrap_or_default() < CONFIRM_WITHIN;
        match (self, is_listed) {
            // The API may take a while to leave it out.
            (Self::Deleting(at), true) if is_recent(at) => (self, None),
            (Self::Deleting(at) | Self::Deleted(at), true) => (Self::Listed, Some(at)),
            (Self::Deleting(at) | Self::Deleted(at), false) => (Self::Deleted(at), None),
            (Self::Unknown | Self::Listed | Self::Missing, true) => (Self::Listed, None),
            (Self::Unknown | Self::Listed | Self::Missing, false) => (Self::Missing, None),
        }
    }

    /// After a webhook has reported the deletion.
    fn after_report(self, at: SystemTime) -> Self {
        match self {
            Self::Deleted(before) => Self::Deleted(before.max(at)),
            Self::Deleting(before) => Self::Deleting(before.max(at)),
            Self::Missing => Self::Deleted(at),
            Self::Unknown | Self::Listed => Self::Deleting(at),
        }
    }

    /// Whether the list of labels is expected to confirm a deletion soon.
    pub fn is_unconfirmed(self) -> bool {
        matches!(self, Self::Deleting(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_counts_once_the_list_of_labels_confirms_it() {
        let now = SystemTime::now();
        let (recent, old) = (now - CONFIRM_WITHIN / 2, now - CONFIRM_WITHIN * 2);
        use Presence::{Deleted, Deleting, Listed, Missing, Unknown};
        let cases = [
            // before, listed, after, settled
            (Unknown, true, Listed, None),
            (Unknown, false, Missing, None),
            (Listed, false, Missing, None),
            (Missing, true, Listed, None),
            (Deleting(recent), true, Deleting(recent), None),
            (Deleting(old), true, Listed, Some(old)),
            (Deleting(recent), false, Deleted(recent), None),
            (Deleting(old), false, Deleted(old), None),
            (Deleted(recent), false, Deleted(recent), None),
            // It was created again.
            (Deleted(recent), true, Listed, Some(recent)),
        ];
        for (before, is_listed, after, settled) in cases {
            let found = before.after_list(is_listed, now);
            assert_eq!(found, (after, settled), "{before:?} {is_listed}");
        }
        let reports = [
            (Unknown, Deleting(recent)),
            (Listed, Deleting(recent)),
            (Missing, Deleted(recent)),
            (Deleting(old), Deleting(recent)),
            (Deleted(old), Deleted(recent)),
        ];
        for (before, after) in reports {
            assert_eq!(before.after_report(recent), after, "{before:?}");
        }
    }
}
