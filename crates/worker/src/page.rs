//! The local page: what the worker does, for its owner's browser (`/`) and for programs
//! (`/status.json`). It only reads. It has no script and loads nothing from elsewhere.
//!
//! Bounds: a handful of connections, small requests, and seconds for each, so that the page can do
//! the mining no harm.

mod html;
mod models;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_serving::downloads::Downloads;
use dovetail_serving::models::Models;
use dovetail_sv2::{Listener, PlaceLimits};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stats::Stats;
pub use status::Status;

/// Browsers open a few connections each; more need not look at once.
const CONNECTIONS_MAX: usize = 16;
/// Time for a request's head, and for the whole exchange.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(15);
/// The most that is read ahead of a request; the least that hyper allows.
const BUFFER_BYTES_MAX: usize = 8 * 1024;

/// Nothing may run or be loaded but our own style sheet, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What the page is about.
#[derive(Debug)]
pub struct Page {
    /// The worker's key, in hexadecimal digits.
    pub worker: String,
    /// When it started.
    pub started: Instant,
    /// What it counts.
    pub stats: Arc<Stats>,
    /// The models that it serves,
    pub models: Models,
    /// and those that are still to come.
    pub downloads: Option<Downloads>,
}

/// Serves the page until `shutdown`, and returns once every connection has ended.
pub async fn serve(listener: TcpListener, page: Page, shutdown: CancellationToken) {
    let listener = Listener::new(listener, PlaceLimits::total(CONNECTIONS_MAX));
    let page = Arc::new(page);
    let connections = TaskTracker::new();
    while let Some((stream, place)) = listener.next(&shutdown).await {
        let (page, token) = (page.clone(), shutdown.clone());
        connections.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                served = timeout(EXCHANGE_TIME_MAX, exchange(stream, page)) => {
                    if served.is_err() {
                        tracing::debug!("a connection to the page took too long");
                    }
                }
            }
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// One request and its answer.
async fn exchange(stream: TcpStream, page: Arc<Page>) {
    let answer = service_fn(move |request| {
        let answer = page.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the page failed");
    }
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers().get(header::HOST);
        if !host.is_some_and(names_a_place) {
            return plain(
                StatusCode::MISDIRECTED_REQUEST,
                "open this page by its address",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "this page only reads");
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        match request.uri().path() {
            "/" => {
                let text = html::page(&self.status());
                respond(StatusCode::OK, "text/html; charset=utf-8", text)
            }
            "/page.css" => respond(StatusCode::OK, "text/css", html::STYLE.to_owned()),
            "/status.json" => match serde_json::to_string(&self.status()) {
                Ok(text) => respond(StatusCode::OK, "application/json", text),
                Err(error) => {
                    tracing::error!(%error, "the status does not fit its form");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "see the worker's log")
                }
            },
            _ => plain(StatusCode::NOT_FOUND, "there are / and /status.json"),
        }
    }

    fn status(&self) -> Status {
        let models = models::Model::all(&self.models, self.downloads.as_ref());
        Status::of(&self.worker, self.started.elapsed(), &self.stats, models)
    }
}

/// Whether a `Host` is an address or `localhost`. A name that somebody's DNS points here would let a
/// web site read the page through its visitors' browsers.
fn names_a_place(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let (name, port_is_good) = match host.rsplit_once(':') {
        // The last group of an IPv6 address in brackets is no port.
        Some((name, port)) if !port.ends_with(']') => (name, is_port(port)),
        _ => (host, true),
    };
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    port_is_good
        && (name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok())
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_serving::downloads::PoolModels;
    use dovetail_serving::fetch::{Pace, Wanted};
    use std::sync::atomic::Ordering;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Serves a page with something on it.
    async fn start() -> (std::net::SocketAddr, CancellationToken) {
        let stats = Arc::new(Stats::default());
        stats.mining.refused("<script>alert(1)</script>");
        stats.mining.shares_accepted.store(7, Ordering::Relaxed);
        stats.paid_msat.store(42_000, Ordering::Relaxed);
        stats.inference_msat.store(31_500, Ordering::Relaxed);
        stats.pool("pool.example:3333", |pool| {
            pool.tokens_generated = 9_001;
            pool.tokens_credited = 8_002;
            pool.gets_work = false;
        });
        let wanted = PoolModels {
            api: "http://127.0.0.1:1".into(),
            models: vec![Wanted::Name("clerk<b>".to_owned())],
            cache_dir: "none".into(),
            model_bytes_max: 1,
            pace: Pace::default(),
        };
        let page = Page {
            worker: "ab".repeat(32),
            started: Instant::now(),
            stats,
            models: Models::default(),
            downloads: Some(Downloads::new(wanted, Models::default())),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, page, stop.clone()));
        (address, stop)
    }

    async fn ask(address: std::net::SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        ask(address, &head).await
    }

    #[tokio::test]
    async fn the_page_says_what_the_worker_does_and_escapes_what_pools_say() {
        let (address, _stop) = start().await;
        let page = get(address, "/").await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(page.contains("content-security-policy: default-src 'none'"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        let waiting = ">clerk&lt;b&gt;</th><td>waiting for the pool<";
        for shown in [
            ">7<",
            ">42.000<",
            ">31.500<",
            "Work for pool.example:3333",
            ">9001<",
            ">8002<",
            "owes",
            waiting,
        ] {
            assert!(page.contains(shown), "{page}");
        }
        assert!(get(address, "/page.css").await.contains("text/css"));
    }

    #[tokio::test]
    async fn the_same_is_there_for_programs() {
        let (address, _stop) = start().await;
        let answer = get(address, "/status.json").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("application/json"));
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(status["shares"]["accepted"], 7);
        assert_eq!(status["earned"]["paid_msat"], 42_000);
        assert_eq!(status["earned"]["inference_msat"], 31_500);
        assert_eq!(status["earned"]["inference_held_msat"], 0);
        assert_eq!(status["shares"]["refused"]["<script>alert(1)</script>"], 1);
        assert_eq!(status["upstream"]["kind"], "none");
        assert_eq!(status["pools"][0]["address"], "pool.example:3333");
        assert_eq!(status["pools"][0]["tokens_credited"], 8_002);
        assert_eq!(status["models"][0]["state"], "waiting");
    }

    #[tokio::test]
    async fn other_paths_methods_names_and_junk_get_nothing() {
        let (address, _stop) = start().await;
        assert!(get(address, "/etc/passwd").await.contains(" 404 "));
        let post = format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
        assert!(ask(address, &post).await.contains(" 405 "));
        for host in ["Host: evil.example", "Host: evil.example:80", "X-No: host"] {
            let head = format!("GET /status.json HTTP/1.1\r\n{host}\r\n\r\n");
            assert!(ask(address, &head).await.contains(" 421 "), "{host}");
        }
        let long = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n",
            "x".repeat(100_000)
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
        // It still serves.
        assert!(get(address, "/").await.contains(" 200 "));
    }

    #[test]
    fn only_addresses_and_localhost_name_the_page() {
        let named = |host: &str| names_a_place(&HeaderValue::from_str(host).unwrap());
        for good in [
            "127.0.0.1:80",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "LocalHost:1",
        ] {
            assert!(named(good), "{good}");
        }
        for bad in ["", "evil.example", "localhost.evil:1", "127.0.0.1:x", "::"] {
            assert!(!named(bad), "{bad}");
        }
    }
}
