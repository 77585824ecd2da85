//! A proxy for Redis that answers some commands itself, as some real proxies do.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

/// Returns the answer to a command, or `None` to forward it to the server.
type Answers = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Starts the proxy in front of a server until the test process ends. Returns its port.
pub(crate) fn answering(
    server: u16,
    answers: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: Arc<Answers> = Arc::new(answers);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || serve(client, server, &*answers));
        }
    });
    port
}

fn serve(mut client: TcpStream, server: u16, answers: &Answers) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut commands = BufReader::new(client.try_clone().unwrap());
    while let Some((name, bytes)) = command(&mut commands) {
        let done = match answers(&name) {
            Some(answer) => client.write_all(format!("{answer}\r\n").as_bytes()),
            None => server.write_all(&bytes),
        };
        if done.is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// Reads the next command: its name and its bytes.
fn command(from: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let number = |from: &mut dyn BufRead, bytes: &mut Vec<u8>| {
        let mut line = String::new();
        let read = from.read_line(&mut line).ok()?;
        bytes.extend_from_slice(line.as_bytes());
        (read > 0).then(|| line[1..].trim().parse::<usize>().unwrap())
    };
    let count = number(from, &mut bytes)?;
    let mut name = String::new();
    for index in 0..count {
        let length = number(from, &mut bytes)?;
        let mut argument = vec![0; length + 2];
        from.read_exact(&mut argument).ok()?;
        if index == 0 {
            name = String::from_utf8_lossy(&argument[..length]).to_uppercase();
        }
        bytes.extend(argument);
    }
    Some((name, bytes))
}
