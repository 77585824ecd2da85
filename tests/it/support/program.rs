//! The program under test, as a separate process.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A command before it runs.
pub(crate) struct Running {
    command: Command,
    report_file: Option<PathBuf>,
}

/// A running process.
pub(crate) struct Process {
    child: Option<Child>,
    report_file: Option<PathBuf>,
}

/// The results of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, or `None` if a signal ended the process.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Reads the report from its file.
    pub(crate) report: Value,
}

impl Running {
    pub(crate) fn new(command: &str) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_labelcast"));
        // Variables of the machine must not affect a test.
        program.env_clear().arg(command);
        program.stdin(Stdio::null());
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            command: program,
            report_file: None,
        }
    }

    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(
        mut self,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn arg(self, arg: &str) -> Self {
        self.args([arg])
    }

    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        self.env_os(name, value.as_ref())
    }

    pub(crate) fn env_os(mut self, name: &str, value: &std::ffi::OsStr) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn stdout(mut self, stdout: Stdio) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Limits files to this many blocks of 512 bytes, like a full disk. The signal that comes with
    /// the limit is ignored, so that a write fails after the part that fits.
    pub(crate) fn with_disk_of(self, blocks: u32) -> Self {
        self.after(&format!("trap '' XFSZ; ulimit -f {blocks}"))
    }

    /// Removes permissions from each file that is created.
    pub(crate) fn with_umask(self, mask: &str) -> Self {
        self.after(&format!("umask {mask}"))
    }

    /// Starts the program in a shell, after other commands.
    fn after(mut self, commands: &str) -> Self {
        let line = format!(r#"{commands}; exec "$0" "$@""#);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).arg(self.command.get_program());
        shell.args(self.command.get_args()).env_clear();
        for (name, value) in self.command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command = shell;
        self
    }

    pub(crate) fn report_file(mut self, path: PathBuf) -> Self {
        self.command.arg("--report-file").arg(&path);
        self.report_file = Some(path);
        self
    }

    pub(crate) fn spawn(mut self) -> Process {
        if let Some(path) = &self.report_file {
            let _ = std::fs::remove_file(path);
        }
        Process {
            child: Some(self.command.spawn().unwrap()),
            report_file: self.report_file,
        }
    }

    /// Runs the command to its end.
    pub(crate) fn end(self) -> Ended {
        self.spawn().end()
    }
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, signal: &str) {
        let line = format!("kill -{signal} {}", self.id());
        let status = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    }

    /// Kills the process with SIGKILL, unless it has ended as complete.
    pub(crate) fn kill_or_complete(mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        let code = self.end().code;
        assert!(matches!(code, None | Some(0)), "it ended with {code:?}");
    }

    /// Kills the process with SIGKILL. Panics if it had already ended.
    pub(crate) fn kill(mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        assert_eq!(self.end().code, None);
    }

    /// Returns the peak memory so far, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        words[1].parse().unwrap()
    }

    /// Takes the stdout of the process, so that the test can read or close it.
    pub(crate) fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    /// Takes the stderr of the process, so that the test can read it while it runs.
    pub(crate) fn take_stderr(&mut self) -> std::process::ChildStderr {
        self.child.as_mut().unwrap().stderr.take().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }

    /// Waits for the end of the process.
    pub(crate) fn end(mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        // Read both at once, so that neither pipe fills up.
        let stderr = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).unwrap();
                text
            })
        });
        let mut stdout = String::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        let code = child.wait().unwrap().code();
        let stderr = stderr.map_or_else(String::new, |thread| thread.join().unwrap());
        let report = self
            .report_file
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        Ended {
            code,
            stdout,
            stderr,
            report,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ended {
    /// Returns the report on the first label.
    pub(crate) fn label(&self) -> &Value {
        &self.report["labels"][0]
    }

    /// Checks the exit code, and prints everything if it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        if !self.report.is_null() {
            assert_eq!(self.report["exit_code"], code, "{self:#?}");
        }
        self
    }
}
