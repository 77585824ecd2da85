//! The program: parses the command line, and leaves the rest to the library.

use std::process::ExitCode;

use labelcast::exit::Exit;
use labelcast::{cli, commands, telemetry};

fn main() -> ExitCode {
    telemetry::quiet_panics();
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Help and version are no errors, and go to stdout; a reader that has gone is fine.
            let _ = error.print();
            if error.use_stderr() {
                let arguments: Vec<_> = std::env::args_os().collect();
                return commands::report_usage(&arguments).into();
            }
            return Exit::Complete.into();
        }
    };
    std::panic::catch_unwind(|| commands::main(invocation)).unwrap_or(Exit::Bug.into())
}
