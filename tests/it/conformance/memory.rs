//! The broker in memory, whose worker is a thread of this process.

use labelcast::broker::memory::{self, Memory};
use tokio_util::sync::CancellationToken;

use super::{Fault, Message, Subject, Worker};
use crate::support::thread_worker::ThreadWorker;
use crate::support::{Ended, Stage, wait_until};

pub(super) struct InMemory {
    memory: Memory,
    /// Lets a held append go.
    release: CancellationToken,
}

impl InMemory {
    pub(super) fn start() -> Self {
        Self {
            memory: Memory::default(),
            release: CancellationToken::new(),
        }
    }
}

impl Worker for ThreadWorker {
    fn stop(&self) {
        ThreadWorker::stop(self);
    }

    fn end(self) -> Ended {
        ThreadWorker::end(self)
    }
}

impl Subject for InMemory {
    const REPEATS: usize = 0;
    const KEEPS_ORDER: bool = true;

    type Worker = ThreadWorker;

    fn start_run(&self, stage: &Stage, retries: usize, _: Option<Fault>) -> ThreadWorker {
        ThreadWorker::start(stage, &self.memory, retries)
    }

    fn depth(&mut self) -> usize {
        self.memory.messages().len()
    }

    fn break_down(&mut self, fault: Fault, worker: &ThreadWorker) {
        match fault {
            Fault::Refuse => self.memory.script(memory::Fault::Refuse),
            Fault::FailAfterWrite => self.memory.script(memory::Fault::LoseReply),
            Fault::Cut => self.memory.script(memory::Fault::Cut),
            Fault::Hold => {
                let release = self.release.clone();
                self.memory.script(memory::Fault::Hold(release));
            }
            Fault::Kill => worker.kill(),
        }
    }

    fn recover(&mut self, _: Fault, _: &mut ThreadWorker) {
        wait_until("the fault is met", || self.memory.faults_left() == 0);
        self.release.cancel();
    }

    fn messages(&mut self) -> Vec<Message> {
        let messages = self.memory.messages().into_iter();
        let messages = messages.map(|message| Message {
            id: format!("{}:{}", message.run_id, message.chat_id),
            chat: message.chat_id,
            run_id: message.run_id.to_string(),
        });
        messages.collect()
    }
}
