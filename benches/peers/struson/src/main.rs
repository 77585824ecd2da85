//! Goes through a file with a list so many times: `bare-struson FILE TIMES`.

#![forbid(unsafe_code)]

mod bare;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(times), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: bare-struson FILE TIMES".into());
    };
    let list = std::fs::read(path)?;
    let mut chats = 0;
    for _ in 0..times.parse()? {
        chats += bare::chats(&list)?;
    }
    println!("{chats}");
    Ok(())
}
