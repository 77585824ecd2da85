//! A dashboard on a loopback port, and a plain HTTP client that sends exactly these headers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labelcast::live::overview::{LabelView, LastRun, Overview, RunStatus};
use labelcast::server::dashboard::Dashboard;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const TIME_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Served {
    address: SocketAddr,
    pub(super) overview: watch::Sender<Arc<Overview>>,
    pub(super) stop: CancellationToken,
}

pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Served {
    /// A dashboard without a token, bound to loopback.
    pub(super) async fn open(overview: Overview) -> Self {
        Self::with(overview, None, true).await
    }

    pub(super) async fn with(overview: Overview, token: Option<&str>, is_loopback: bool) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(overview));
        let stop = CancellationToken::new();
        let dashboard = Dashboard {
            overview: receiver,
            token: token.map(|token| token.to_owned().into()),
            is_loopback,
            stop: stop.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, dashboard.routes()).into_future());
        Self {
            address,
            overview: sender,
            stop,
        }
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "").await
    }

    pub(super) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.send(method, path, headers, body).await;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(TIME_LIMIT, read)
            .await
            .unwrap()
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer::new(head, body)
    }

    /// Returns the time until the first byte of an answer.
    pub(super) async fn time_to_first_byte(&self, path: &str) -> Duration {
        let start = std::time::Instant::now();
        let mut stream = self.send("GET", path, &[], "").await;
        stream.read_u8().await.unwrap();
        start.elapsed()
    }

    /// Opens a stream of events.
    pub(super) async fn events(&self, query: &str) -> Events {
        let stream = self.send("GET", &format!("/events{query}"), &[], "").await;
        let mut events = Events(BufReader::new(stream));
        let mut head = String::new();
        loop {
            let line = events.line().await.unwrap();
            if line.is_empty() {
                break;
            }
            head = head + &line + "\r\n";
        }
        let answer = Answer::new(&head, "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        events
    }

    /// The server ends an answer of HTTP/1.0 by closing the connection, and sends it unframed.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TcpStream {
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

impl Answer {
    fn new(head: &str, body: &str) -> Self {
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Self {
            status: status.unwrap().parse().unwrap(),
            headers: lines.filter_map(header).collect(),
            body: body.to_owned(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(super) struct Events(BufReader<TcpStream>);

impl Events {
    /// Returns the next line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        let read = tokio::time::timeout(TIME_LIMIT, read).await.unwrap();
        (read.unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    /// Returns the data of the next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_223_478)
}

pub(super) fn overview(labels: Vec<LabelView>) -> Overview {
    Overview {
        at: time(),
        labels,
        events_by_minute: vec![1, 2],
        error: None,
        reconcile_every: None,
        enriched: Vec::new(),
    }
}

pub(super) fn label(id: &str, name: &str, chats: Option<u64>) -> LabelView {
    LabelView {
        label_id: id.to_owned(),
        label_name: Some(name.to_owned()),
        color_hex: Some("#64C4ff".to_owned()),
        chats,
        counted_at: Some(time()),
        is_exact: true,
        is_deleted: false,
        queue: format!("labelcast:{id}"),
        messages: None,
        lag: None,
        last_run: None,
        trend: Vec::new(),
    }
}

pub(super) fn run(status: RunStatus, error: Option<&str>) -> LastRun {
    LastRun {
        label_id: "1".to_owned(),
        run_id: "0197c0de-0000-7000-8000-000000000001".to_owned(),
        status,
        chats: 5,
        published: 4,
        finished_at: time(),
        elapsed: Duration::from_millis(1500),
        error: error.map(str::to_owned),
    }
}
