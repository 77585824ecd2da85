//! RabbitMQ with a state beside it.

use super::{Store, adds_up, counts, set_list, set_of, with_both_stores};
use crate::support::rabbitmq::{Message, once, vhost};
use crate::support::{Running, Stage, held_after, map_of, small_list, wait_until};

with_both_stores! {
    only_new_and_removed_go_to_two_queues
    a_killed_run_repeats_only_what_was_in_hand
    a_lost_queue_gets_the_chats_of_its_run_again
}

fn to(stage: &Stage, store: &Store, url: &str) -> Running {
    let run = stage.program("run").args(["--label", "1", "--sink", url]);
    run.args(["--state", &store.url()])
}

fn chats(messages: &[Message]) -> Vec<String> {
    messages.iter().flat_map(Message::chats).collect()
}

fn only_new_and_removed_go_to_two_queues(store: &Store) {
    let vhost = vhost();
    let (ids, _) = small_list(1500);
    let stage = Stage::with_body(map_of(&ids[..1400]));
    let run = || to(&stage, store, &vhost.url()).args(["--only-new", "--removed"]);
    counts(&run().end().expect(0), [1400, 0, 0, 0]);
    set_list(&stage, &ids[100..]);
    let ended = run().end().expect(0);
    counts(&ended, [100, 0, 1300, 100]);
    let client = vhost.client();
    assert_eq!(chats(&client.drain("labelcast:1")), ids);
    let removed = client.drain("labelcast:1:removed");
    assert_eq!(
        (set_of(&chats(&removed)), removed.len()),
        (set_of(&ids[..100]), 100)
    );
    let run_id = ended.label()["run_id"].as_str().unwrap();
    for message in &removed {
        assert_eq!(message.data.as_object().unwrap().len(), 4);
        assert_eq!(message.data["event"], "label.chat.deleted");
        assert_eq!(message.data["run_id"], run_id);
        let chat = message.data["chat_id"].as_str().unwrap();
        assert_eq!(message.id(), format!("{run_id}:{chat}:deleted"));
        let kind = message.properties.kind().as_ref().unwrap();
        assert_eq!(kind.as_str(), "labelcast.event");
        assert_eq!(*message.properties.delivery_mode(), Some(2));
    }
}

fn a_killed_run_repeats_only_what_was_in_hand(store: &Store) {
    let vhost = vhost();
    let (ids, _) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..1000]));
    let run = || to(&stage, store, &vhost.url()).args(["--only-new", "--suppress-for", "1h"]);
    counts(&run().end().expect(0), [1000, 0, 0, 0]);
    let client = vhost.client();
    assert_eq!(client.drain("labelcast:1").len(), 1000);
    let body = map_of(&ids);
    stage.mock.script("1", held_after(&body, 5000));
    let first = run().spawn();
    let is_there = |count| {
        client
            .depth("labelcast:1")
            .is_some_and(|depth| depth >= count)
    };
    wait_until("the run publishes", || is_there(3000));
    first.kill();
    super::lists::release(store);
    set_list(&stage, &ids);
    let ended = run().end().expect(0);
    adds_up(&ended);
    assert_eq!(ended.label()["known"], 1000);
    let messages = client.drain("labelcast:1");
    let (once, repeated) = once(&messages);
    assert_eq!(set_of(&once), set_of(&ids[1000..]));
    assert!(repeated <= 1024, "{repeated} repeats");
    counts(&run().end().expect(0), [0, 0, 6000, 0]);
}

fn a_lost_queue_gets_the_chats_of_its_run_again(store: &Store) {
    let vhost = vhost();
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(map_of(&ids[..500]));
    let run = || to(&stage, store, &vhost.url()).args(["--only-new"]);
    counts(&run().end().expect(0), [500, 0, 0, 0]);
    stage.mock.script("1", held_after(&body, 2500));
    let first = run().spawn();
    let client = vhost.client();
    let is_there = |count| {
        client
            .depth("labelcast:1")
            .is_some_and(|depth| depth >= count)
    };
    wait_until("the run publishes", || is_there(2500));
    first.signal("TERM");
    first.end().expect(75);
    // The chats are recorded as published, and the queue goes with its messages.
    client.delete("labelcast:1");
    set_list(&stage, &ids);
    let ended = run().end().expect(0);
    assert_eq!(
        set_of(&chats(&client.drain("labelcast:1"))),
        set_of(&ids[500..])
    );
    assert_eq!(ended.label()["known"], 500);
    counts(&run().end().expect(0), [0, 0, 3000, 0]);
}

#[test]
fn several_labels_at_once_share_the_file() {
    use labelcast::mock::Chats;
    let (vhost, store) = (vhost(), Store::file());
    let (ids, _) = small_list(2000);
    let labels = ["1", "2", "3", "4"];
    let body = |number: usize| Chats::Body(map_of(&ids[..500 * number + 500]).into());
    let list = labels.iter().enumerate();
    let stage = Stage::with_labels(list.map(|(at, label)| (*label, body(at))).collect());
    let run = || {
        let run = stage
            .program("run")
            .args(["--all-labels", "--concurrency", "4"]);
        let run = run.args(["--sink", &vhost.url(), "--state", &store.url()]);
        run.args(["--only-new", "--removed"]).end().expect(0)
    };
    assert_eq!(run().report["totals"]["published"], 5000);
    let again = run();
    assert_eq!(again.report["totals"]["published"], 0);
    assert_eq!(again.report["totals"]["known"], 5000);
    let client = vhost.client();
    for (at, label) in labels.iter().enumerate() {
        let messages = client.drain(&format!("labelcast:{label}"));
        assert_eq!(chats(&messages), ids[..500 * at + 500]);
    }
}
