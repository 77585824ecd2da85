//! Parses a file with a list several times and prints the number of chats and the nanoseconds of
//! CPU time: `bare-struson FILE TIMES`.

#![forbid(unsafe_code)]

mod bare;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(times), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: bare-struson FILE TIMES".into());
    };
    let list = std::fs::read(path)?;
    let (begin, mut chats) = (cpu_nanos()?, 0);
    for _ in 0..times.parse()? {
        chats += bare::chats(&list)?;
    }
    println!("{chats} {}", cpu_nanos()? - begin);
    Ok(())
}

/// Returns the CPU time of this thread: see `/proc/PID/schedstat` in the kernel's
/// `sched-stats.rst`.
fn cpu_nanos() -> Result<u64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().unwrap_or_default();
    Ok(nanos.parse()?)
}
