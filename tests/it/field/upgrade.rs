//! Only a redirect from http to https on the same host keeps the login.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{TWO, TWO_IDS};
use crate::support::{INSTANCE, Running, TOKEN, ids_in, make_certificate};

/// A proxy that acts as two servers with one name: port 80 redirects, port 443 is the API.
struct TwoServers {
    port: u16,
    /// The `Authorization` headers that the API received.
    logins: Arc<Mutex<Vec<String>>>,
}

impl TwoServers {
    fn start(folder: &Path, redirect_to: &'static str) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&logins);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, logins) = (Arc::clone(&config), Arc::clone(&ours));
                std::thread::spawn(move || serve(stream, redirect_to, config, &logins));
            }
        });
        Self { port, logins }
    }
}

fn serve(
    mut stream: TcpStream,
    redirect_to: &str,
    config: Arc<ServerConfig>,
    logins: &Mutex<Vec<String>>,
) {
    let Some(head) = read_head(&mut stream) else {
        return;
    };
    let target = head[0].split(' ').nth(1).unwrap();
    if head[0].starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let connection = ServerConnection::new(config).unwrap();
        answer(&mut StreamOwned::new(connection, stream), logins);
    } else {
        // A request to a proxy contains the whole URL.
        let path = target.strip_prefix("http://localhost").unwrap();
        let reply = format!(
            "HTTP/1.1 301 Moved\r\nlocation: {redirect_to}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

fn answer(stream: &mut StreamOwned<ServerConnection, TcpStream>, logins: &Mutex<Vec<String>>) {
    while let Some(head) = read_head(stream) {
        let login = head
            .iter()
            .find_map(|line| line.strip_prefix("authorization: "));
        logins
            .lock()
            .unwrap()
            .push(login.unwrap_or_default().to_owned());
        let body = if head[0].contains("/chats") {
            TWO
        } else {
            r#"[{"id":"1","name":"VIP"}]"#
        };
        let length = body.len();
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

/// Reads the lines of a request's head, or `None` at the end of the connection.
fn read_head(stream: &mut impl Read) -> Option<Vec<String>> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(1..) if line == "\r\n" => return Some(head),
            Ok(1..) => head.push(line.trim_end().to_owned()),
            _ => return None,
        }
    }
}

fn run(folder: &Path, proxy: u16) -> Running {
    let proxy = format!("http://127.0.0.1:{proxy}");
    let sink = format!("file:{}", folder.join("out.jsonl").display());
    Running::new("run")
        .args(["--api-url", "http://localhost", "--instance-id", INSTANCE])
        .args(["--label", "1", "--auth", "bearer", "--sink", &sink])
        .env("WAWP_ACCESS_TOKEN", TOKEN)
        .env("ALL_PROXY", &proxy)
        .env("SSL_CERT_FILE", folder.join("ca.pem").to_str().unwrap())
}

#[test]
fn an_upgrade_to_tls_keeps_the_login() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let servers = TwoServers::start(folder.path(), "https://localhost");
    let ended = run(folder.path(), servers.port).end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ids_in(&folder.path().join("out.jsonl")), TWO_IDS);
    let login = format!("Bearer {TOKEN}");
    assert_eq!(*servers.logins.lock().unwrap(), [login.clone(), login]);
}

#[test]
fn another_host_or_port_does_not_get_the_login() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    for elsewhere in [
        "https://localhost:8443",
        "https://127.0.0.1",
        "http://localhost:8080",
    ] {
        let servers = TwoServers::start(folder.path(), elsewhere);
        let ended = run(folder.path(), servers.port).end();
        assert_eq!(ended.code, Some(76), "{ended:#?}");
        assert!(ended.stderr.contains(elsewhere), "{ended:#?}");
        assert!(servers.logins.lock().unwrap().is_empty());
    }
}
