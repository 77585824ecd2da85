//! A queue of a RabbitMQ broker, behind a proxy.

use super::{Fault, Message, Subject};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{self, Client, Vhost, vhost};
use crate::support::{Process, Running, Stage, wait_until};

const QUEUE: &str = "labelcast:1";
/// The limit of the queue if it is to refuse messages.
const ROOM: usize = 2000;

pub(super) struct Queue {
    kind: &'static str,
    vhost: Vhost,
    client: Client,
    proxy: Proxy,
    taken: Vec<rabbitmq::Message>,
}

impl Queue {
    pub(super) fn start(kind: &'static str) -> Self {
        let vhost = vhost();
        Self {
            kind,
            client: vhost.client(),
            proxy: Proxy::start(vhost.port),
            vhost,
            taken: Vec::new(),
        }
    }

    fn drain(&mut self) {
        self.taken.extend(self.client.drain(QUEUE));
    }

    /// A run to this sink, which is going to meet a fault, if one is named.
    fn command(&self, stage: &Stage, fault: Option<Fault>) -> Running {
        if fault == Some(Fault::Refuse) {
            let arguments = [
                ("x-queue-type", self.kind.into()),
                ("x-max-length", ROOM.into()),
                ("x-overflow", "reject-publish".into()),
            ];
            self.client.declare(QUEUE, &arguments);
        }
        let url = self.vhost.url_by(self.proxy.port);
        let run = stage.program("run").args(["--label", "1", "--sink", &url]);
        match fault {
            Some(Fault::Refuse) => run.args(["--no-declare"]),
            _ => run.args(["--queue-type", self.kind]),
        }
    }
}

impl Subject for Queue {
    /// 8 batches of 64 that are unconfirmed, and as many whose checkpoint is.
    const REPEATS: usize = 1024;
    /// What is refused is sent again behind what was not.
    const KEEPS_ORDER: bool = false;

    type Worker = Process;

    fn start_run(&self, stage: &Stage, retries: usize, fault: Option<Fault>) -> Process {
        self.command(stage, fault)
            .args(["--retries", &retries.to_string()])
            .spawn()
    }

    fn depth(&mut self) -> usize {
        self.client.depth(QUEUE).unwrap_or(0)
    }

    fn break_down(&mut self, fault: Fault, process: &Process) {
        match fault {
            // Make room for some more messages.
            Fault::Refuse => {}
            Fault::FailAfterWrite => self.proxy.cut_after(0, Direction::ToClient),
            Fault::Hold => self.proxy.hold_connections(),
            Fault::Cut => self.proxy.cut_after(20_000, Direction::ToServer),
            Fault::Kill => process.signal("KILL"),
        }
    }

    fn recover(&mut self, fault: Fault, process: &mut Process) {
        match fault {
            Fault::Refuse => {
                wait_until("the queue is full", || self.depth() >= ROOM);
                wait_until("a consumer has made room for all messages", || {
                    self.drain();
                    process.has_ended()
                });
                self.drain();
                // The next run declares a queue without a limit.
                self.client.delete(QUEUE);
            }
            Fault::FailAfterWrite | Fault::Cut => {
                wait_until("the connection has broken", || !self.proxy.is_armed());
            }
            Fault::Hold | Fault::Kill => {}
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        if self.client.depth(QUEUE).is_some() {
            self.drain();
        }
        let messages = self.taken.iter().map(|message| Message {
            id: message.id(),
            chat: message.data["chat_id"].as_str().unwrap().to_owned(),
            run_id: message.data["run_id"].as_str().unwrap().to_owned(),
        });
        messages.collect()
    }
}
