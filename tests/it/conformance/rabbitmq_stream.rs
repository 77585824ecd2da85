//! A stream of a RabbitMQ broker, over the stream protocol. The connection that publishes, and the one
//! with the lock and the checkpoint, are behind a proxy each.

use super::{Fault, Message, Subject};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Client, Vhost, vhost};
use crate::support::{Process, Stage, wait_until};

const QUEUE: &str = "labelcast:1";

pub(super) struct Stream {
    vhost: Vhost,
    client: Client,
    publishing: Proxy,
    control: Proxy,
}

impl Stream {
    pub(super) fn start() -> Self {
        let vhost = vhost();
        Self {
            client: vhost.client(),
            publishing: Proxy::start(vhost.stream_port),
            control: Proxy::start(vhost.port),
            vhost,
        }
    }
}

impl Subject for Stream {
    /// The broker drops what it already has.
    const REPEATS: usize = 0;
    const KEEPS_ORDER: bool = true;

    type Worker = Process;

    fn start_run(&self, stage: &Stage, retries: usize, _: Option<Fault>) -> Process {
        let (publishing, control) = (self.publishing.port, self.control.port);
        let url = self.vhost.stream_url(publishing, control);
        stage
            .program("run")
            .args(["--label", "1", "--sink", &url])
            .args(["--retries", &retries.to_string()])
            .spawn()
    }

    fn depth(&mut self) -> usize {
        self.client.depth(QUEUE).unwrap_or(0)
    }

    fn break_down(&mut self, fault: Fault, process: &Process) {
        match fault {
            // A stream refuses nothing; but the run can lose its lock and its checkpoint.
            Fault::Refuse => self.control.cut_connections(),
            Fault::FailAfterWrite => self.publishing.cut_after(0, Direction::ToClient),
            Fault::Hold => self.publishing.hold_connections(),
            Fault::Cut => self.publishing.cut_after(20_000, Direction::ToServer),
            Fault::Kill => process.signal("KILL"),
        }
    }

    fn recover(&mut self, fault: Fault, _: &mut Process) {
        match fault {
            Fault::FailAfterWrite | Fault::Cut => {
                wait_until("the connection has broken", || !self.publishing.is_armed());
            }
            Fault::Refuse | Fault::Hold | Fault::Kill => {}
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        if self.client.depth(QUEUE).is_none() {
            return Vec::new();
        }
        let messages = self.client.read_stream(QUEUE).into_iter();
        let messages = messages.map(|message| Message {
            id: message.id(),
            chat: message.data["chat_id"].as_str().unwrap().to_owned(),
            run_id: message.data["run_id"].as_str().unwrap().to_owned(),
        });
        messages.collect()
    }
}
