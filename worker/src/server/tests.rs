//! Clients that are slow, idle, too many or mean, over real sockets.

use axum::routing::{get, post};
use luminate_crds::worker_config::{ByteSize, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// What a test waits for at most; far beyond every timeout set here.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: Stop,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
    /// Lets `/wait` answer.
    go: Arc<Notify>,
    /// Told when `/wait` is asked.
    asked: Arc<Notify>,
}

async fn start(change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings {
        header_timeout: Span::from_millis(300),
        idle_timeout: Span::from_millis(600),
        max_header_bytes: ByteSize(8 << 10),
        ..Settings::default()
    };
    change(&mut settings);
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let wait = {
        let (go, asked) = (Arc::clone(&go), Arc::clone(&asked));
        move || async move {
            asked.notify_one();
            go.notified().await;
            "waited"
        }
    };
    let large = || async { vec![b'x'; 64 << 20] };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/wait", post(wait))
        .route("/large", get(large));
    let (metrics, stop) = (Arc::new(Metrics::new(Arc::default())), Stop::default());
    let address = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let server =
        Server::bind(address, app, &settings, None, Arc::clone(&metrics), stop.clone()).await.unwrap();
    let address = server.address().unwrap();
    Running { address, stop, task: tokio::spawn(server.run()), metrics, go, asked }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// All that comes until the server hangs up.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a hanging up, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("still open");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What comes until `part` has come.
async fn until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(part) {
        let read =
            tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("nothing comes").unwrap();
        assert_ne!(read, 0, "{part} has not come: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let server = start(|_| ()).await;
    let mut silent = server.connect().await;
    assert_eq!(rest(&mut silent).await, "");
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off() {
    let server = start(|_| ()).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
    // The second request of a connection has no more time than the first.
    let mut slow = server.connect().await;
    slow.write_all(HELLO).await.unwrap();
    until(&mut slow, "hello").await;
    slow.write_all(b"GET / HT").await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
}

#[tokio::test]
async fn a_connection_may_idle_between_requests_but_not_for_ever() {
    let server = start(|settings| settings.idle_timeout = Span::from_secs(2)).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(HELLO).await.unwrap();
        until(&mut stream, "hello").await;
        // Longer than headers may take.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn oversize_headers_are_refused() {
    let server = start(|_| ()).await;
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = stream.write_all(head.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let mut stream = server.connect().await;
    let many: String = (0..=MAX_HEADERS).map(|n| format!("h{n}: x\r\n")).collect();
    stream.write_all(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()).await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = start(|_| ()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let open = || server.metrics.page().unwrap().contains("luminate_connections 1");
    while !open() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut looks = 0..1_000;
    // Nothing is read here, so only the server can end it.
    while open() {
        assert!(looks.next().is_some(), "the connection is still held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn over_the_limit_of_connections_the_rest_goes_on() {
    let server = start(|settings| {
        settings.max_connections = 1;
        settings.header_timeout = Span::from_secs(10);
        settings.idle_timeout = Span::from_secs(10);
    })
    .await;
    let mut first = server.connect().await;
    first.write_all(HELLO).await.unwrap();
    until(&mut first, "hello").await;
    let mut spare = Vec::new();
    for _ in 0..64 {
        spare.push(server.connect().await);
    }
    // Those beyond the spare ones are closed at once.
    assert_eq!(rest(&mut spare.pop().unwrap()).await, "");
    first.write_all(HELLO).await.unwrap();
    until(&mut first, "hello").await;
    assert!(server.metrics.page().unwrap().contains("luminate_connections_refused_total"));
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_no_more() {
    let server = start(|_| ()).await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    server.asked.notified().await;
    server.stop.gracefully.cancel();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!server.task.is_finished());
    server.go.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("waited"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_is_under_way_when_the_drain_begins_is_answered() {
    let server = start(|settings| settings.header_timeout = Span::from_secs(5)).await;
    let mut fresh = server.connect().await;
    let mut kept = server.connect().await;
    kept.write_all(HELLO).await.unwrap();
    until(&mut kept, "hello").await;
    server.stop.gracefully.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(HELLO).await.unwrap();
        assert!(until(stream, "hello").await.starts_with("HTTP/1.1 200"));
    }
    server.ended().await;
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off() {
    let server = start(|_| ()).await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    server.asked.notified().await;
    server.stop.gracefully.cancel();
    server.stop.now.cancel();
    assert_eq!(rest(&mut busy).await, "");
    server.ended().await;
}

/// One HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http://x/`, from the static table (RFC 7541, appendix A).
const GET_ROOT: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
/// `POST http://x/wait`.
const POST_WAIT: &[u8] = &[0x83, 0x86, 0x44, 0x05, b'/', b'w', b'a', b'i', b't', 0x41, 0x01, b'x'];
const END: u8 = 0x05;

#[tokio::test]
async fn http2_is_spoken_without_tls() {
    let server = start(|_| ()).await;
    let mut stream = server.connect().await;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, END, 1, GET_ROOT)].concat()).await.unwrap();
    until(&mut stream, "hello").await;
    // Pings don't keep an idle connection open.
    let _ = stream.write_all(&frame(6, 0, 0, &[0; 8])).await;
    rest(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_is_cut_off() {
    let server = start(|settings| settings.idle_timeout = Span::from_secs(15)).await;
    let mut stream = server.connect().await;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let mut flood = Vec::new();
    for number in 0..2_000_u32 {
        let id = 2 * number + 1;
        flood.extend(frame(1, END, id, POST_WAIT));
        flood.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    // GOAWAY, then the end, long before the connection would have idled out.
    let (mut bytes, began) = (Vec::new(), std::time::Instant::now());
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("still open");
    assert!(bytes.windows(2).any(|pair| pair == [7, 0]), "no GOAWAY");
    assert!(began.elapsed() < Duration::from_secs(15));
}
