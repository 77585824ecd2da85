//! A file. Its faults are those of a disk and of a killed worker.

use std::io::Write as _;

use serde_json::Value;

use super::{Fault, Message, Subject};
use crate::support::{Process, Running, Stage, lines_in, messages_in, wait_until};

pub(super) struct File {
    folder: tempfile::TempDir,
}

impl File {
    pub(super) fn start() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn out(&self) -> std::path::PathBuf {
        self.path("out.jsonl")
    }

    fn journal(&self) -> std::path::PathBuf {
        self.path("out.jsonl.labelcast")
    }

    /// A run to this sink, which is going to meet a fault, if one is named.
    fn command(&self, stage: &Stage, fault: Option<Fault>) -> Running {
        let sink = format!("file:{}", self.out().display());
        let run = stage.program("run").args(["--label", "1", "--sink", &sink]);
        match fault {
            // Most of the list has room.
            Some(Fault::Refuse) => run.with_disk_of(900),
            _ => run,
        }
    }
}

impl Subject for File {
    const REPEATS: usize = 0;
    const KEEPS_ORDER: bool = true;

    fn exit_code(fault: Fault) -> Option<i32> {
        match fault {
            Fault::Refuse => Some(74),
            Fault::Hold => Some(0),
            Fault::FailAfterWrite | Fault::Cut | Fault::Kill => None,
        }
    }

    type Worker = Process;

    fn start_run(&self, stage: &Stage, retries: usize, fault: Option<Fault>) -> Process {
        self.command(stage, fault)
            .args(["--retries", &retries.to_string()])
            .spawn()
    }

    fn depth(&mut self) -> usize {
        lines_in(&self.out())
    }

    fn break_down(&mut self, fault: Fault, process: &Process) {
        match fault {
            Fault::Refuse => {}
            Fault::Hold => process.signal("STOP"),
            // A file has no connection, so a partial line is the only effect of a write that
            // breaks.
            Fault::Cut | Fault::Kill => {
                // Lines are written before they are recorded.
                wait_until("a batch is recorded", || lines_in(&self.journal()) >= 2);
                process.signal("KILL");
            }
            Fault::FailAfterWrite => {
                // The first line is the start of the run. The last line is lost, and a batch
                // remains.
                wait_until("two batches are recorded", || {
                    lines_in(&self.journal()) >= 3
                });
                process.signal("KILL");
            }
        }
    }

    fn recover(&mut self, fault: Fault, process: &mut Process) {
        match fault {
            Fault::Hold => process.signal("CONT"),
            Fault::FailAfterWrite => {
                wait_until("the worker is gone", || process.has_ended());
                let text = std::fs::read_to_string(self.journal()).unwrap();
                let (before, _) = text.trim_end().rsplit_once('\n').unwrap();
                std::fs::write(self.journal(), format!("{before}\n")).unwrap();
            }
            Fault::Cut => {
                wait_until("the worker is gone", || process.has_ended());
                let out = std::fs::OpenOptions::new().append(true).open(self.out());
                out.unwrap().write_all(b"{\"chat_id\":\"555").unwrap();
            }
            Fault::Refuse | Fault::Kill => {}
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
        let messages = messages_in(&self.out());
        let messages = messages.iter().map(|message| {
            let (chat, run_id) = (text(message, "chat_id"), text(message, "run_id"));
            Message {
                id: format!("{run_id}:{chat}"),
                chat,
                run_id,
            }
        });
        messages.collect()
    }
}
