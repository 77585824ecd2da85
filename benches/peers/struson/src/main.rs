//! Goes through a file with a list so many times, and tells how many chats there were, and how many
//! nanoseconds of CPU they took: `bare-struson FILE TIMES`.

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

/// What this thread has had of the CPU: see `/proc/PID/schedstat` in the kernel's `sched-stats.rst`.
fn cpu_nanos() -> Result<u64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().unwrap_or_default();
    Ok(nanos.parse()?)
}
