//! A private Redis server, behind a proxy.

use super::{Fault, Message, Subject};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, entries, expire_locks, field, length};
use crate::support::{Process, Stage, wait_until};

const STREAM: &str = "labelcast:1";

pub(super) struct Redis {
    server: Server,
    proxy: Proxy,
    connection: redis::Connection,
}

impl Redis {
    pub(super) fn start() -> Self {
        let server = Server::start(&[]);
        Self {
            proxy: Proxy::start(server.port),
            connection: server.connection(),
            server,
        }
    }

    fn set_memory(&mut self, bytes: &str) {
        redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", bytes])
            .exec(&mut self.connection)
            .unwrap();
    }

    fn has_refused(&mut self) -> bool {
        let errors: String = redis::cmd("INFO")
            .arg("errorstats")
            .query(&mut self.connection)
            .unwrap();
        errors.contains("errorstat_OOM")
    }
}

impl Subject for Redis {
    const REPEATS: usize = 0;
    const KEEPS_ORDER: bool = true;

    type Worker = Process;

    fn start_run(&self, stage: &Stage, retries: usize, _: Option<Fault>) -> Process {
        let retries = retries.to_string();
        let sink = ["--label", "1", "--sink", &self.proxy.url()];
        let run = stage.program("run").args(sink);
        run.args(["--retries", &retries]).spawn()
    }

    fn depth(&mut self) -> usize {
        length(&mut self.connection, STREAM)
    }

    fn break_down(&mut self, fault: Fault, process: &Process) {
        match fault {
            Fault::Refuse => self.set_memory("1"),
            Fault::FailAfterWrite => self.proxy.cut_after(0, Direction::ToClient),
            Fault::Hold => self.proxy.hold_connections(),
            Fault::Cut => self.proxy.cut_after(20_000, Direction::ToServer),
            Fault::Kill => process.signal("KILL"),
        }
    }

    fn recover(&mut self, fault: Fault, _: &mut Process) {
        match fault {
            Fault::Refuse => {
                wait_until("the server has refused a write", || self.has_refused());
                self.set_memory("0");
            }
            Fault::FailAfterWrite | Fault::Cut => {
                wait_until("the connection has broken", || !self.proxy.is_armed());
            }
            Fault::Hold | Fault::Kill => {}
        }
    }

    fn age_remains(&mut self) {
        expire_locks(&mut self.server.connection());
    }

    fn messages(&mut self) -> Vec<Message> {
        let entries = entries(&mut self.connection, STREAM);
        let messages = entries.iter().map(|entry| {
            let chat = field(entry, "chat_id").unwrap();
            let run_id = field(entry, "run_id").unwrap();
            Message {
                id: format!("{run_id}:{chat}"),
                chat,
                run_id,
            }
        });
        messages.collect()
    }
}
